"""Reads {"schema": …, "instances": […]}, writes what is wrong with each instance. The schema itself is checked first."""

import json
import sys

from jsonschema.validators import Draft202012Validator, validator_for

asked = json.load(sys.stdin)
validator = validator_for(asked["schema"], default=Draft202012Validator)
validator.check_schema(asked["schema"])
validator = validator(asked["schema"])
json.dump([[f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(instance)]
           for instance in asked["instances"]], sys.stdout)
