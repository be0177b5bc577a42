// Validates resources of the Prometheus Operator, a JSON array on standard input, with its schemas.

import { readFileSync } from "node:fs";
import { PrometheusRule, ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const kinds = { PrometheusRule, ServiceMonitor };
for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  new kinds[resource.kind](resource).validate();
}
