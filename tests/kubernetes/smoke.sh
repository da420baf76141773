#!/usr/bin/env bash
# Shows on the cluster of `make cluster` that pods are real: replicas, a service, its name, logs, exec, PostgreSQL on the host, no way out.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/env.sh"
cluster=$root/scripts/cluster.sh
node_address=10.213.0.1
namespace=smoke
work=$(mktemp -d)
chmod 755 "$work"
postgres_bin=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -1 | xargs -r dirname)
[ -n "$postgres_bin" ] || fail "PostgreSQL is not installed: run \`scripts/setup.sh test\` first"

kubectl() { "$cluster" kubectl "$@"; }
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; }
# shellcheck disable=SC2329
finish() {
  as_postgres "$postgres_bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true
  kubectl delete namespace "$namespace" --timeout=60s >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

# expect WHAT WANTED COMMAND...: the command's output contains what is wanted, at the latest after a while: rules follow endpoints by a second.
expect() {
  local what=$1 wanted=$2 found started=$SECONDS
  shift 2
  while :; do
    found=$("$@" 2>&1) || true
    case $found in *"$wanted"*) break ;; esac
    [ $((SECONDS - started)) -lt 15 ] || fail "$what: wanted \"$wanted\", found: $found"
    sleep 0.2
  done
  printf 'ok   %s\n' "$what"
}

say images
"$root/scripts/image.sh" localhost/heyuan/probe:1 "$work/probe.tar" /bin/busybox "$(command -v curl)"
"$root/scripts/image.sh" localhost/heyuan/psql:1 "$work/psql.tar" "$postgres_bin/psql"
"$cluster" load "$work/probe.tar" "$work/psql.tar"

say pods
kubectl create namespace "$namespace"
started=$(date +%s%N)
kubectl apply -n "$namespace" -f - <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: {name: probe}
spec:
  replicas: 2
  selector: {matchLabels: {app: probe}}
  template:
    metadata: {labels: {app: probe}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      containers:
      - name: probe
        image: localhost/heyuan/probe:1
        imagePullPolicy: Never
        command: [busybox, sh, -c, 'hostname >/tmp/index.html; echo serving; exec busybox httpd -f -v -p 8080 -h /tmp']
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        securityContext: {runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}
---
apiVersion: v1
kind: Service
metadata: {name: probe}
spec: {selector: {app: probe}, ports: [{port: 80, targetPort: 8080}]}
YAML
kubectl rollout status -n "$namespace" deployment/probe --timeout=90s >/dev/null
printf 'ok   two replicas ready after %d ms\n' $((($(date +%s%N) - started) / 1000000))
pod=$(kubectl get pods -n "$namespace" -l app=probe -o 'jsonpath={.items[0].metadata.name}')
service=$(kubectl get service -n "$namespace" probe -o 'jsonpath={.spec.clusterIP}')
in_pod() { kubectl exec -n "$namespace" "$pod" -- "$@"; }
expect "the service answers the host" probe- curl --silent --noproxy '*' --max-time 5 "http://$service/"
# Eight requests meet both pods, nearly always.
expect "the service answers a pod, also its own" "all answered" in_pod busybox sh -c "curl --silent --fail-early --max-time 5 'http://$service/?[1-8]' && echo all answered"
if "$cluster" status | grep "^coredns *running" >/dev/null; then
  expect "the service has a name" "all answered" in_pod busybox sh -c "curl --silent --max-time 5 http://probe/ http://probe.$namespace.svc/ && echo all answered"
fi
expect "logs" serving kubectl logs -n "$namespace" "$pod"
expect "exec" uid=65532 in_pod busybox id
# An address for documentation: the packet would leave by the default route.
expect "no way out of the cluster" "Failed to connect" in_pod curl --silent --show-error --max-time 5 http://198.51.100.1/

say PostgreSQL
install -d -o postgres -g postgres "$work/data"
as_postgres "$postgres_bin/initdb" -D "$work/data" -U heyuan --auth=trust --no-sync >/dev/null
printf 'host all all 10.213.0.0/16 trust\n' >>"$work/data/pg_hba.conf"
as_postgres "$postgres_bin/pg_ctl" -D "$work/data" -w -o "-p 15432 -k $work/data -c listen_addresses=$node_address" -l "$work/data/log" start >/dev/null
expect "PostgreSQL on the host answers a pod" "it is 42" kubectl run psql -n "$namespace" --image=localhost/heyuan/psql:1 --image-pull-policy=Never \
  --restart=Never --rm --attach --quiet -- -h "$node_address" -p 15432 -U heyuan -d postgres -Atc "select 'it is ' || 6 * 7"
