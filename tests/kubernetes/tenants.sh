#!/usr/bin/env bash
# A tenant's life on the cluster of `make cluster`, with real pods: installed by Helm, applied, called from outside by a Segment SDK, given a
# plugin, killed and given new passwords under load, upgraded, deleted and taken over. Prints what each part took.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/env.sh"
cluster=$root/scripts/cluster.sh
helm=$HEYUAN_CACHE/tools/bin/helm
node_address=10.213.0.1
system=heyuan-system
work=$(mktemp -d)
chmod 755 "$work"
postgres_bin=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -1 | xargs -r dirname)
postgres_port=15432
python=$HEYUAN_CACHE/clients/python/bin/python
passed=0

kubectl() { "$cluster" kubectl "$@"; }
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; }
sql() { psql -X -A -t -q -h "$node_address" -p "$postgres_port" -U postgres -d postgres -v ON_ERROR_STOP=1 "$@"; }
# shellcheck disable=SC2329
finish() {
  local status=$?
  [ -z "${load:-}" ] || kill "$load" 2>/dev/null || true
  if [ "$status" -ne 0 ]; then
    kubectl get tenants -o yaml | tail -120 || true
    kubectl get pods -A -o wide || true
    kubectl logs -n "$system" deployment/heyuan-operator --tail=60 || true
    kubectl describe pods -n tenant-jade | tail -60 || true
  fi
  as_postgres "$postgres_bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$work"
}
began=$SECONDS
# ok WHAT: one more thing is as it should be.
ok() { passed=$((passed + 1)); printf 'ok   %-70s %4d s\n' "$1" $((SECONDS - began)); began=$SECONDS; }
# eventually WHAT COMMAND...: the command succeeds, at the latest after four minutes: the kubelet brings a changed secret once a minute.
eventually() {
  local what=$1 started=$SECONDS
  shift
  until "$@" >"$work/out" 2>&1; do
    [ $((SECONDS - started)) -lt 240 ] || { cat "$work/out" >&2; fail "$what did not come about"; }
    sleep 0.3
  done
}
ready() { kubectl wait "tenant/$1" --for=condition=Ready --timeout=180s >/dev/null; }
tenant() { kubectl get tenant "$1" -o "jsonpath={$2}"; }
secret() { kubectl get secret -n "tenant-$1" "$2" -o "jsonpath={.data['$3']}" | base64 -d; }
address() { kubectl get service -n "tenant-$1" heyuan -o 'jsonpath={.spec.clusterIP}'; }
api() { # api KEY METHOD PATH [BODY]
  curl --silent --show-error --fail-with-body --noproxy '*' --max-time 20 -H "Authorization: Bearer $1" -H 'Content-Type: application/json' \
    -X "$2" "http://$(address jade):8080$3" ${4:+--data "$4"}
}

reason=$("$cluster" can)
[ -z "$reason" ] || { say "no cluster here: $reason"; exit 0; }
"$cluster" up
trap 'finish; "$cluster" down' EXIT

say images
release() { "$root/scripts/image.sh" "localhost/heyuan/heyuan:$1" "$work/heyuan-$1.tar" "$CARGO_TARGET_DIR/release/heyuan"; }
release 1
release 2
"$root/scripts/image.sh" localhost/heyuan/heyuan-operator:1 "$work/operator.tar" "$CARGO_TARGET_DIR/release/heyuan-operator"
"$cluster" load "$work"/heyuan-1.tar "$work"/heyuan-2.tar "$work/operator.tar"
ok "three images are made and loaded"

say "a PostgreSQL server on the host"
install -d -o postgres -g postgres "$work/data"
as_postgres "$postgres_bin/initdb" -D "$work/data" -U postgres -A trust >/dev/null
echo "host all all 10.213.0.0/16 scram-sha-256" >>"$work/data/pg_hba.conf"
sed -i "1i host all postgres $node_address/32 trust" "$work/data/pg_hba.conf"
as_postgres "$postgres_bin/pg_ctl" -D "$work/data" -w -o "-p $postgres_port -k /tmp -c listen_addresses=$node_address" -l "$work/data/log" start >/dev/null
sql -v name=heyuan_operator -v password=operator-password -f "$root/docs/operator.sql"
ok "the server has the operator's role"

say "helm install"
"$helm" --kubeconfig "$("$cluster" kubeconfig)" install heyuan "$root/charts/heyuan" --namespace "$system" --create-namespace \
  --set image.repository=localhost/heyuan/heyuan-operator --set-string image.tag=1 --set image.pullPolicy=Never --set replicas=1 \
  --wait --timeout 120s >/dev/null
kubectl create secret generic main-admin -n "$system" --from-literal=username=heyuan_operator --from-literal=password=operator-password >/dev/null
ok "the operator runs"

# The volumes that a storage class would make.
for volume in 1 2 3; do
  install -d -m 0777 "$work/volume-$volume"
  kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: PersistentVolume
metadata: {name: heyuan-$volume}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: by-hand
  hostPath: {path: $work/volume-$volume}
YAML
done
kubectl apply -f - >/dev/null <<YAML
apiVersion: heyuan.dev/v1alpha1
kind: TenantClass
metadata: {name: default}
spec:
  releases:
  - {name: "1", image: "localhost/heyuan/heyuan:1"}
  - {name: "2", image: "localhost/heyuan/heyuan:2"}
  release: "1"
  sizes: [{name: small, cpu: 50m, memory: 512Mi, connections: 5}]
  defaults: {size: small, volumeSize: 1Gi, replicas: 1}
  database:
    servers: [{name: main, host: $node_address, port: $postgres_port, sslMode: disable, adminSecretName: main-admin}]
  storage: {className: by-hand}
  network: {databaseCidrs: [$node_address/32]}
  rollout: {gateSeconds: 5}
YAML
applied=$(date +%s%N)
kubectl apply -f - >/dev/null <<'YAML'
apiVersion: heyuan.dev/v1alpha1
kind: Tenant
metadata: {name: jade}
spec:
  displayName: 翡翠集团
  database: {managed: {}}
  units:
  - {id: mall-1, name: 翡翠广场, kind: mall}
  plugins: {features: ["profile.*", "count*"]}
YAML
ready jade
printf '     from apply to Ready: %d ms\n' $((($(date +%s%N) - applied) / 1000000))
kubectl get tenants
ok "a tenant is ready"

admin=$(secret jade heyuan-admin admin-key)
ingest=$(api "$admin" POST /v1/keys '{"scopes":["ingest"],"unit":"mall-1"}' | "$python" -c 'import json,sys; print(json.load(sys.stdin)["key"])')
"$python" "$root/tests/clients/python/segment_client.py" "http://$(address jade):8080" "$ingest" first 5 >"$work/sdk"
"$python" -c 'import json,sys; sent=json.load(open(sys.argv[1])); assert sent["sent"] and not sent["errors"], sent' "$work/sdk"
printf '     from apply to the first accepted event: %d ms\n' $((($(date +%s%N) - applied) / 1000000))
ok "a Segment SDK delivers events from outside"

# Under load: every answer counts.
cat >"$work/load.py" <<'PY'
import json, sys, time, urllib.request, base64
url, key, out = sys.argv[1:4]
head = {"Authorization": "Basic " + base64.b64encode((key + ":").encode()).decode(), "Content-Type": "application/json"}
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
good = bad = 0
while True:
    body = json.dumps({"batch": [{"type": "track", "event": "visit", "userId": "u1", "messageId": f"load-{time.time_ns()}"}]}).encode()
    try:
        with opener.open(urllib.request.Request(url + "/v1/batch", body, head), timeout=20) as answer:
            good += answer.status == 200
    except Exception as error:
        bad += 1
        print(time.time(), error, file=sys.stderr, flush=True)
    with open(out, "w") as file:
        file.write(f"{good} {bad}\n")
    time.sleep(0.01)
PY
"$python" "$work/load.py" "http://$(address jade):8080" "$ingest" "$work/count" 2>"$work/load.err" &
load=$!
no_failures() { read -r good bad <"$work/count" || true; printf '     %s requests, %s failed\n' "$good" "$bad"; [ "$bad" -eq 0 ] || { cat "$work/load.err" >&2; fail "$1 cost requests"; }; }

url_before=$(secret jade heyuan database-url)
for turn in 1 2 3; do
  kubectl annotate tenant jade --overwrite "heyuan.dev/rotate=$turn" >/dev/null
  changed() { [ "$(secret jade heyuan database-url)" != "$url_before" ] && [ "$(tenant jade '.status.conditions[?(@.type=="CredentialsCurrent")].reason')" = CredentialsFresh ]; }
  eventually "rotation $turn" changed
  url_before=$(secret jade heyuan database-url)
done
no_failures "rotation"
ok "three rotations under load without a failed request"

kubectl patch tenant jade --type=merge -p '{"spec":{"release":"2"}}' >/dev/null
eventually "the upgrade" sh -c "[ \"\$('$cluster' kubectl get tenant jade -o 'jsonpath={.status.release}')\" = 2 ]"
ready jade
no_failures "the upgrade"
ok "an upgrade under load without a failed request"

kill "$load" && unset load
data=$(tenant jade .status.dataId)
kubectl delete pod -n tenant-jade -l app.kubernetes.io/component=server --wait=false >/dev/null
eventually "a new pod serves" api "$admin" GET /v1/keys
ok "a pod that is killed comes back"

kubectl delete tenant jade --timeout=120s >/dev/null
[ "$(sql -c "select count(*) from pg_database where datname = 'heyuan_$data'")" = 1 ] || fail "the data is not there"
ok "the tenant is deleted and its data retained"
kubectl get persistentvolumes -o name | xargs -r -n1 "$cluster" kubectl patch --type=json -p '[{"op":"remove","path":"/spec/claimRef"}]' >/dev/null 2>&1 || true
kubectl apply -f - >/dev/null <<YAML
apiVersion: heyuan.dev/v1alpha1
kind: Tenant
metadata: {name: jade}
spec: {displayName: 翡翠集团, adopt: $data, release: "2", database: {managed: {}}}
YAML
ready jade
api "$(secret jade heyuan-admin admin-key)" GET /v1/keys >/dev/null
ok "the data is adopted, and its administrator's key works"

"$helm" --kubeconfig "$("$cluster" kubeconfig)" uninstall heyuan --namespace "$system" --wait >/dev/null
kubectl get tenant jade >/dev/null
[ "$(kubectl get deployment -n tenant-jade heyuan -o 'jsonpath={.status.availableReplicas}')" = 1 ] || fail "the tenant does not serve"
ok "uninstalling the chart leaves tenants serving"
printf '%d passed, 0 failed\n' "$passed"
