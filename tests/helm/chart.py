"""Lints the Helm chart, renders it with Helm's own engine and validates every manifest.

Every combination of the boolean values is rendered, and validated strictly against the JSON schemas
of the Kubernetes versions below. The alert rules of the PrometheusRule are checked by promtool.
"""

import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

import helm_python as helm
import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = ["1.28.0", "1.32.0", "1.37.0"]
CHART = pathlib.Path("deploy/helm/deskbridge")
RULES = pathlib.Path("config/prometheus/alerts.yml")
# Custom resources of the Prometheus Operator, which custom.mjs validates.
CUSTOM = {"ServiceMonitor", "PrometheusRule"}
REQUIRED = {"rabbitmq": {"existingSecret": "broker"}, "ingress": {"host": "chat.example.com"}}
# Text values that a template branches on.
FULL = {
    "imagePullSecrets": [{"name": "registry"}],
    "image": {"tag": "1.2.3"},
    "secrets": {"existingSecret": "webhooks"},
    "rabbitmq": {"existingSecret": "broker", "managementUrlKey": "management", "caSecret": "ca"},
    "persistence": {"size": "5Gi", "storageClass": "local-path"},
    "service": {"type": "LoadBalancer", "annotations": {"a.example.com/b": "c"}},
    "ingress": {
        "host": "chat.example.com",
        "className": "nginx",
        "tlsSecret": "tls",
        "annotations": {"a.example.com/b": "c"},
    },
    "serviceMonitor": {"labels": {"release": "prometheus"}},
    "prometheusRule": {"labels": {"release": "prometheus"}},
    "networkPolicy": {"adminFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
    "serviceAccount": {"name": "bridge", "annotations": {"a.example.com/b": "c"}},
    "podAnnotations": {"a.example.com/b": "c"},
    "podLabels": {"team": "chat"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "chat", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "extraEnv": [{"name": "DESKBRIDGE__JOURNAL__RETENTION", "value": "30d"}],
    "config": "[sources.acme]\nsecrets = [\"{{ not a template }}\"]\n",
}
# Values that the chart refuses, and a word of the reason.
REFUSED = [
    ({}, "rabbitmq.existingSecret is required"),
    ({**REQUIRED, "ingress": {"enabled": True}}, "host"),
    ({**REQUIRED, "ingress": {"enabled": "yes"}}, "boolean"),
    ({**REQUIRED, "replicas": 2}, "replicas"),
    ({**REQUIRED, "persistence": {"size": "20"}}, "size"),
    ({**REQUIRED, "service": {"port": 0}}, "port"),
    ({**REQUIRED, "terminationGracePeriodSeconds": 5}, "terminationGracePeriodSeconds"),
]


def booleans(values, path=()):
    for key, value in values.items():
        if isinstance(value, bool):
            yield (*path, key)
        elif isinstance(value, dict):
            yield from booleans(value, (*path, key))


def merged(base, layer):
    both = {**base, **layer}
    for key in base.keys() & layer.keys():
        if isinstance(base[key], dict) and isinstance(layer[key], dict):
            both[key] = merged(base[key], layer[key])
    return both


def with_flags(values, flags):
    for path, value in flags.items():
        layer = value
        for key in reversed(path):
            layer = {key: layer}
        values = merged(values, layer)
    return values


def manifests(chart, values):
    rendered = chart.render(values, name="chat", namespace="prod")
    for path, text in rendered.items():
        if not path.endswith(".txt"):
            yield from (m for m in yaml.safe_load_all(text) if m)


def expected_kinds(flags):
    kinds = {"ConfigMap", "StatefulSet", "Service"}
    optional = {
        ("ingress", "enabled"): "Ingress",
        ("serviceMonitor", "enabled"): "ServiceMonitor",
        ("prometheusRule", "enabled"): "PrometheusRule",
        ("networkPolicy", "enabled"): "NetworkPolicy",
        ("podDisruptionBudget", "enabled"): "PodDisruptionBudget",
        ("serviceAccount", "create"): "ServiceAccount",
    }
    assert flags.keys() == optional.keys(), f"booleans of values.yaml: {sorted(flags)}"
    return kinds | {kind for flag, kind in optional.items() if flags[flag]}


def check_pod(manifest, values):
    pod = manifest["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"] for volume in pod["volumes"]} | {"journal"}
    assert mounted == volumes, (mounted, volumes)
    assert ("secrets" in mounted) == bool(values.get("secrets"))


def check_rules(manifest):
    assert manifest["spec"] == yaml.safe_load(RULES.read_text()), "other alerts"
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump(manifest["spec"], file)
        file.flush()
        subprocess.run(["promtool", "check", "rules", file.name], check=True, capture_output=True)


def check_selectors(objects):
    pods = next(m for m in objects if m["kind"] == "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    services = [m for m in objects if m["kind"] == "Service"]
    for m in objects:
        spec = m.get("spec", {})
        selector = {
            "Service": lambda: spec["selector"],
            "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
            "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
            "StatefulSet": lambda: spec["selector"]["matchLabels"],
        }.get(m["kind"], dict)()
        assert selector.items() <= pods.items(), f"{m['kind']} selects no pod"
        if m["kind"] == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"].items()
            found = [s for s in services if wanted <= s["metadata"]["labels"].items()]
            ports = [p["name"] for s in found for p in s["spec"]["ports"]]
            assert ports == [e["port"] for e in spec["endpoints"]] == ["admin"]
        if m["kind"] == "Ingress":
            backend = spec["rules"][0]["http"]["paths"][0]["backend"]["service"]
            found = [s for s in services if s["metadata"]["name"] == backend["name"]]
            assert found[0]["spec"]["ports"][0]["name"] == backend["port"]["name"]


def are_valid(custom):
    run = subprocess.run(
        ["node", "tests/helm/custom.mjs"], input=json.dumps(custom), text=True, capture_output=True
    )
    return run.returncode == 0


def check_lint():
    for version in KUBERNETES:
        report = helm.lint(CHART, REQUIRED, strict=True, namespace="prod", kube_version=f"v{version}")
        findings = [m for m in report["messages"] if m["severity"] >= 2]
        assert not findings and not report["errors"], report


def check_refusals(chart):
    for values, word in REFUSED:
        try:
            chart.validate_schema(values)
            chart.render(values, name="chat")
        except helm.HelmError as error:
            assert word in str(error), (values, str(error))
        else:
            raise AssertionError(f"not refused: {values}")


def main():
    check_lint()
    count = {"combinations": 0, "manifests": 0, "different manifests": 0}
    seen = set()
    custom = []
    with helm.Chart.load(CHART) as chart:
        check_refusals(chart)
        flags = list(booleans(chart.values))
        for base in (REQUIRED, FULL):
            for setting in itertools.product([False, True], repeat=len(flags)):
                setting = dict(zip(flags, setting))
                values = with_flags(base, setting)
                chart.validate_schema(values)
                objects = list(manifests(chart, values))
                assert {m["kind"] for m in objects} == expected_kinds(setting), setting
                names = [(m["kind"], m["metadata"]["name"]) for m in objects]
                assert len(set(names)) == len(names), names
                check_selectors(objects)
                count["combinations"] += 1
                for m in objects:
                    count["manifests"] += 1
                    if m["kind"] == "StatefulSet":
                        check_pod(m, base)
                    if m["kind"] == "ConfigMap" and "config" in base:
                        assert m["data"]["deskbridge.toml"] == base["config"]
                    text = json.dumps(m, sort_keys=True)
                    if text in seen:
                        continue
                    seen.add(text)
                    count["different manifests"] += 1
                    if m["kind"] in CUSTOM:
                        custom.append(m)
                        continue
                    for version in KUBERNETES:
                        kubernetes_validate.validate(m, version, strict=True)
        assert are_valid(custom) and {m["kind"] for m in custom} == CUSTOM
        objects = list(manifests(chart, with_flags(FULL, {flag: True for flag in flags})))
        check_rules(next(m for m in objects if m["kind"] == "PrometheusRule"))
        # The validator must be able to fail.
        wrong = next(m for m in objects if m["kind"] == "StatefulSet")
        wrong["spec"]["replica"] = 1
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(wrong, version, strict=True)
            except jsonschema.ValidationError:
                continue
            raise AssertionError(f"{version}: a wrong manifest is valid")
        wrong = next(m for m in custom if m["kind"] == "ServiceMonitor")
        wrong["spec"]["endpoints"][0]["port"] = 9180
        assert not are_valid([wrong]), "a wrong ServiceMonitor is valid"
    with tempfile.TemporaryDirectory() as folder:
        with helm.Chart.load(helm.package(CHART, destination=folder)) as packaged:
            assert any(m["kind"] == "PrometheusRule" and m["spec"]["groups"] for m in manifests(
                packaged, with_flags(REQUIRED, {("prometheusRule", "enabled"): True})))
    print(f"helm-test: Helm {helm.helm_sdk_version()}, Kubernetes {', '.join(KUBERNETES)}")
    print("helm-test: " + ", ".join(f"{n} {what}" for what, n in count.items()))


sys.exit(main())
