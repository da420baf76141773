#!/usr/bin/env bash
# Tenants' lives on the cluster of `make cluster`, with real pods: Helm, a Segment SDK, a plugin, rotations, deaths, a drain, releases with
# migrations that are let in, stopped and taken back, operators that follow each other, an autoscaler, SQLite, deletion and adoption.
# Prints what each part took, and the count of what it checked in the words of a test suite.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/env.sh"
cluster=$root/scripts/cluster.sh
here=$root/tests/kubernetes
helm=$HEYUAN_CACHE/tools/bin/helm
node_address=10.213.0.1
system=heyuan-system
work=$(mktemp -d)
chmod 755 "$work"
postgres_bin=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -1 | xargs -r dirname)
postgres_port=15432
database_host=postgres.databases.svc.cluster.local
python=$HEYUAN_CACHE/clients/python/bin/python
first_event_ms_max=30000
crash_seconds_max=10
passed=0 part='' parts=() load='' keeper=''

kubectl() { "$cluster" kubectl "$@"; }
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; }
sql() { psql -X -A -t -q -h "$node_address" -p "$postgres_port" -U postgres -d postgres -v ON_ERROR_STOP=1 "$@"; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# begin PART: what follows belongs to it.
begin() {
  [ -z "$part" ] || parts+=("$(printf '%-58s %3d min %02d s' "$part" $(((SECONDS - part_began) / 60)) $(((SECONDS - part_began) % 60)))")
  part=$1 part_began=$SECONDS
  [ -z "$part" ] || say "$part"
}
# ok WHAT: one more thing is as it should be.
ok() { passed=$((passed + 1)); printf 'ok   %4d s  %s\n' "$SECONDS" "$1"; }
# same WHAT WANTED FOUND
same() { [ "$2" = "$3" ] || fail "$1: wanted \"$2\", found \"$3\""; ok "$1"; }
# eventually WHAT COMMAND...: the command succeeds, at the latest after five minutes.
eventually() {
  local what=$1 started=$SECONDS
  shift
  until "$@" >"$work/out" 2>&1; do
    [ $((SECONDS - started)) -lt 300 ] || { cat "$work/out" >&2; fail "$what did not come about"; }
    sleep 0.3
  done
}
# shellcheck disable=SC2329
finish() {
  local status=$?
  set +e
  [ -z "$load" ] || kill "$load" 2>/dev/null
  [ -z "$keeper" ] || kill "$keeper" 2>/dev/null
  if [ "$status" -ne 0 ]; then
    kubectl get tenants -o yaml | grep -v '^ *f:' | tail -400
    kubectl get pods,persistentvolumes,horizontalpodautoscalers -A -o wide
    kubectl logs -n "$system" deployment/heyuan-operator --tail=60
    for name in jade amber opal; do kubectl logs -n "tenant-$name" -l app.kubernetes.io/name=heyuan -c heyuan --prefix --tail=30; done
    kubectl get events -A --sort-by=.lastTimestamp | tail -60
    # Also of pods that are gone.
    (cd "$work/logs" 2>/dev/null && grep -rE ' (WARN|ERROR) |panicked' . | tail -60)
    [ ! -s "$work/load.err" ] || tail -20 "$work/load.err"
  fi >&2
  as_postgres "$postgres_bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1
  "$cluster" down
  rm -rf "$work"
  exit "$status"
}

ready() { # ready TENANT: in the generation that was applied last
  local generation
  generation=$(kubectl get tenant "$1" -o 'jsonpath={.metadata.generation}')
  kubectl wait "tenant/$1" --for="jsonpath={.status.observedGeneration}=$generation" --timeout=60s >/dev/null
  kubectl wait "tenant/$1" --for=condition=Ready --timeout=300s >/dev/null
}
tenant() { kubectl get tenant "$1" -o "jsonpath={$2}"; }
reason() { tenant "$1" ".status.conditions[?(@.type==\"$2\")].reason"; }
reads() { [ "$("${@:2}")" = "$1" ]; } # reads WANTED COMMAND...
patch() { kubectl patch tenant "$1" --type=merge -p "{\"spec\":$2}" >/dev/null; }
secret() { kubectl get secret -n "tenant-$1" "$2" -o "jsonpath={.data['$3']}" | base64 -d; }
url() { echo "http://$(kubectl get service -n "tenant-$1" heyuan -o 'jsonpath={.spec.clusterIP}'):8080"; }
admin_key() { secret "$1" heyuan-admin admin-key; }
pods() { kubectl get pods -n "tenant-$1" -l app.kubernetes.io/component=server "${@:2}"; }
pod_uids() { pods "$1" -o 'jsonpath={.items[*].metadata.uid}' | tr ' ' '\n' | sort; }
images() { pods "$1" -o 'jsonpath={.items[*].spec.containers[0].image}' | tr ' ' '\n' | sort -u; }
json() { "$python" -c "import json,sys; print(json.load(sys.stdin)$1)"; }
api() { # api TENANT KEY METHOD PATH [BODY]
  curl --silent --show-error --fail-with-body --noproxy '*' --max-time 20 -H "Authorization: Bearer $2" -H 'Content-Type: application/json' \
    -X "$3" "$(url "$1")$4" ${5:+--data "$5"}
}
key() { api "$1" "$(admin_key "$1")" POST /v1/keys "{\"scopes\":[\"$2\"],\"unit\":\"group\"}" | json '["key"]'; }

# first_event TENANT SINCE_MS: waits for the tenant and sends an event with a Segment SDK; the time since it was applied is among the firsts.
firsts=()
first_event() {
  ready "$1"
  # Ready is what the pods are; the service's rules follow by a moment.
  eventually "$1 answers" api "$1" "$(admin_key "$1")" GET /v1/keys
  "$python" "$root/tests/clients/python/segment_client.py" "$(url "$1")" "$(key "$1" ingest)" first 5 >"$work/sdk"
  "$python" -c 'import json,sys; sent=json.load(open(sys.argv[1])); assert sent["sent"] and not sent["errors"], sent' "$work/sdk"
  firsts+=($(($(now_ms) - $2)))
  printf '     from apply to the first accepted event: %d ms\n' "${firsts[-1]}"
}

# Every answer counts; what failed before is not held against what follows.
start_load() { # start_load TENANT [THREADS [PAUSE_MS]]
  "$python" "$here/load.py" "$(url "$1")" "$(key "$1" ingest)" "$(admin_key "$1")" "$work/count" "${@:2}" 2>"$work/load.err" &
  load=$! forgiven=0
  eventually "the load" test -s "$work/count"
}
stop_load() { kill "$load"; wait "$load" 2>/dev/null || true; load=''; read -r requests failed acknowledged <"$work/count"; }
# no_failures WHAT: since the last look none of the requests failed.
no_failures() {
  sleep 2
  read -r requests failed acknowledged <"$work/count"
  [ "$failed" -eq "$forgiven" ] || { tail -20 "$work/load.err" >&2; fail "$1: $((failed - forgiven)) of the requests failed"; }
  ok "$1: none of the requests failed ($requests so far)"
}
# volume NAME: as a storage class would make it.
volume() {
  install -d -m 0777 "$work/volume-$1"
  kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: PersistentVolume
metadata: {name: heyuan-$1}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce, ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: by-hand
  hostPath: {path: $work/volume-$1}
YAML
}
apply_tenant() { # apply_tenant NAME SPEC
  kubectl apply -f - >/dev/null <<YAML
apiVersion: heyuan.dev/v1alpha1
kind: Tenant
metadata: {name: $1}
spec: {displayName: 翡翠集团, $2}
YAML
}
release_is() { reads "$2" tenant "$1" .status.release; }
upgrade() { # upgrade TENANT RELEASE
  patch "$1" "{\"release\":\"$2\"}"
  eventually "release $2" release_is "$1" "$2"
  ready "$1"
}
operator() { # operator CHART TAG
  "$helm" --kubeconfig "$("$cluster" kubeconfig)" upgrade --install heyuan "$1" --namespace "$system" --create-namespace \
    --set image.repository=localhost/heyuan/heyuan-operator --set-string image.tag="$2" --set image.pullPolicy=Never --set replicas=1 \
    --wait --timeout 180s >/dev/null
}

reason_not=$("$cluster" can)
[ -z "$reason_not" ] || { say "no cluster here: $reason_not"; exit 0; }
began=$SECONDS

begin "builds of the releases to come"
"$here/releases.sh"

begin "cluster, images, PostgreSQL"
trap finish EXIT
"$cluster" up
keep_logs() { while sleep 0.5; do cp -ru "$("$cluster" logs)"/tenant-* "$work/logs/" 2>/dev/null || true; done; }
mkdir "$work/logs"
keep_logs &
keeper=$!
built=$CARGO_TARGET_DIR/release releases=$HEYUAN_CACHE/releases
image() { "$cluster" image "localhost/heyuan/$1" "$2" >/dev/null 2>&1; }
image heyuan:1 "$built/heyuan"
image heyuan:2 "$releases/next/heyuan"
image heyuan:3 "$releases/after-next/heyuan"
image heyuan:broken "$releases/broken/heyuan"
image heyuan-operator:1 "$built/heyuan-operator"
image heyuan-operator:2 "$releases/next/heyuan-operator"
image heyuan-operator:3 "$releases/after-next/heyuan-operator"
install -d -o postgres -g postgres "$work/data"
as_postgres "$postgres_bin/initdb" -D "$work/data" -U postgres -A trust >/dev/null
echo "host all all 10.213.0.0/16 scram-sha-256" >>"$work/data/pg_hba.conf"
sed -i "1i host all postgres $node_address/32 trust" "$work/data/pg_hba.conf"
as_postgres "$postgres_bin/pg_ctl" -D "$work/data" -w -o "-p $postgres_port -k /tmp -c listen_addresses=$node_address" -l "$work/data/log" start >/dev/null
sql -v name=heyuan_operator -v password=operator-password -f "$root/docs/operator.sql"
# The server has a name, so that operator and tenants need the cluster's DNS.
kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: databases}
---
apiVersion: v1
kind: Service
metadata: {name: postgres, namespace: databases}
spec: {ports: [{name: postgres, port: 5432, targetPort: $postgres_port}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: postgres, namespace: databases, labels: {kubernetes.io/service-name: postgres}}
addressType: IPv4
ports: [{name: postgres, port: $postgres_port}]
endpoints: [{addresses: [$node_address]}]
YAML
for number in 1 2 3 4 5; do volume $number; done

begin "helm install, apply, first events"
operator "$root/charts/heyuan" 1
kubectl create secret generic main-admin -n "$system" --from-literal=username=heyuan_operator --from-literal=password=operator-password >/dev/null
ok "the operator runs"
class() { # class NAME
  cat <<YAML
apiVersion: heyuan.dev/v1alpha1
kind: TenantClass
metadata: {name: $1}
spec:
  releases:
  - {name: "1", image: "localhost/heyuan/heyuan:1"}
  - {name: "2", image: "localhost/heyuan/heyuan:2"}
  - {name: "3", image: "localhost/heyuan/heyuan:3"}
  - {name: broken, image: "localhost/heyuan/heyuan:broken"}
  release: "1"
  sizes: [{name: small, cpu: 50m, memory: 512Mi, connections: 10}]
  defaults: {size: small, volumeSize: 1Gi, replicas: 1}
  database:
    servers: [{name: main, host: $database_host, port: 5432, sslMode: disable, adminSecretName: main-admin}]
  storage: {className: by-hand, sharedClassName: by-hand}
  network: {databaseCidrs: [$node_address/32]}
  rollout: {gateSeconds: 5}
YAML
}
class default | kubectl apply -f - >/dev/null
features=("sum(unit_viewed.dwell_seconds where unit_type = '2br') over 30d" "sum(unit_viewed.dwell_seconds where unit_type = '3br') over 30d"
  "sum(unit_viewed.dwell_seconds where unit_type = '4br') over 30d" profile.household_size profile.annual_income)
plugin_reads=$("$python" -c 'import json,sys; print(json.dumps(sys.argv[1:]))' "${features[@]}")
since=$(now_ms)
apply_tenant jade "replicas: 2, database: {managed: {}}, units: [{id: mall-1, name: 翡翠广场, kind: mall}], plugins: {features: $plugin_reads}"
first_event jade "$since"
since=$(now_ms)
apply_tenant amber "autoscaling: {minReplicas: 1, maxReplicas: 3, cpuPercent: 60}, database: {managed: {}}"
first_event amber "$since"
since=$(now_ms)
apply_tenant opal "database: {embedded: {}}"
first_event opal "$since"
ok "three tenants take events of a Segment SDK from outside: managed, autoscaled, embedded"
same "a service has a name" "$(kubectl get service -n tenant-jade heyuan -o 'jsonpath={.spec.clusterIP}')" \
  "$(busybox nslookup heyuan.tenant-jade.svc.cluster.local "$node_address" 2>/dev/null | sed -n 's/^Address: *\([0-9.]*\)$/\1/p' | tail -1)"

begin "a Plugin and its tag"
"$python" "$here/tagged.py" declare "$(url jade)" "$(admin_key jade)"
kubectl create configmap plugins -n tenant-jade --from-file="$HEYUAN_CACHE/plugins/home-upgrader.wasm" >/dev/null
kubectl apply -f - >/dev/null <<YAML
apiVersion: heyuan.dev/v1alpha1
kind: Plugin
metadata: {name: home-upgrader, namespace: tenant-jade}
spec: {kind: tagger, source: {configMap: {name: plugins, key: home-upgrader.wasm}}, features: $plugin_reads, mode: Active}
YAML
kubectl wait -n tenant-jade plugin/home-upgrader --for=condition=Ready --timeout=120s >/dev/null
ok "the plugin is as wished"
"$python" "$here/tagged.py" send "$(url jade)" "$(admin_key jade)" mall-1
ok "the plugin's tag is seen through the API"

begin "three rotations under load"
start_load jade
login=$(secret jade heyuan database-url)
rotated() { [ "$(secret jade heyuan database-url)" != "$login" ] && reads CredentialsFresh reason jade CredentialsCurrent; }
for turn in 1 2 3; do
  kubectl annotate tenant jade --overwrite "heyuan.dev/rotate=$turn" >/dev/null
  eventually "rotation $turn" rotated
  login=$(secret jade heyuan database-url)
done
no_failures "three rotations"

begin "a pod deleted, a drain, a crash, under load"
whole() { reads 2 kubectl get deployment -n tenant-jade heyuan -o 'jsonpath={.status.availableReplicas}'; }
kubectl delete -n tenant-jade "$(pods jade -o name | head -1)" >/dev/null
eventually "two pods serve" whole
no_failures "a pod that is deleted"
# The only node is where the replacements must go: it is opened again as soon as the drain has closed it, and the drain goes on.
before=$(pod_uids jade)
kubectl drain heyuan --pod-selector=heyuan.dev/tenant=jade --delete-emptydir-data --timeout=240s >"$work/drain" 2>&1 &
drain=$!
eventually "the node is closed" reads true kubectl get node heyuan -o 'jsonpath={.spec.unschedulable}'
kubectl uncordon heyuan >/dev/null
wait "$drain" || { cat "$work/drain" >&2; fail "the drain did not end"; }
eventually "two pods serve" whole
same "a drain evicts every pod" "" "$(comm -12 <(echo "$before") <(pod_uids jade))"
no_failures "a drain, one pod at a time"
# A process that dies takes its requests with it, and Kubernetes needs a moment until it sends it no others. What was acknowledged is kept.
uid=$(pod_uids jade | head -1) crashed=$(date +%s)
for process in $(pgrep -f 'heyuan serve --data /data'); do ! grep -q "$uid" "/proc/$process/cgroup" 2>/dev/null || kill -9 "$process"; done
sleep "$crash_seconds_max"
read -r requests forgiven acknowledged <"$work/count"
printf '     %s requests failed as a process was killed\n' "$forgiven"
late=$(awk -v until=$((crashed + crash_seconds_max)) '$1 > until' "$work/load.err" | wc -l)
same "a crash costs requests for seconds only" 0 "$late"
eventually "two pods serve" whole
no_failures "after the crash"

begin "the next operator"
before=$(pod_uids jade; pod_uids amber; pod_uids opal)
labelled() { reads "$1" kubectl get deployment -n tenant-jade heyuan -o 'jsonpath={.metadata.labels.heyuan\.dev/written-by}'; }
operator "$releases/next/chart" 2
eventually "the next operator writes its label" labelled revision-2
for name in jade amber opal; do ready "$name"; done
sleep 5
same "an operator with another pod template, default and label rolls no pod" "$before" "$(pod_uids jade; pod_uids amber; pod_uids opal)"
memory() { kubectl get tenantclass "$1" -o 'jsonpath={.spec.sizes[0].compilerMemory}'; }
class other | kubectl apply -f - >/dev/null
same "a class from before keeps its default, a new one has the new" "512Mi 448Mi" "$(memory default) $(memory other)"
no_failures "the operator's upgrade"

begin "releases 2, 1, 2 under load"
level=$(tenant jade .status.schemaLevel)
upgrade jade 2
same "release 2 has expanded the schema" $((level + 1)) "$(tenant jade .status.schemaLevel)"
serves() { api jade "$(admin_key jade)" GET /openapi.json | json '["info"]["version"]'; }
same "release 2 answers" 0.2.0 "$(serves)"
same "its pods are of the new template" "2 2" "$(pods jade -o 'jsonpath={.items[*].metadata.labels.heyuan\.dev/revision}')"
no_failures "an upgrade with a migration"
upgrade jade 1
same "release 1 serves on the expanded schema" 0.1.0 "$(serves)"
no_failures "a way back"
upgrade jade 2
no_failures "the upgrade again"

begin "a release that is ready and answers 500"
only() { reads "localhost/heyuan/heyuan:$1" images jade && whole; }
eventually "the pods of release 1 are gone" only 2
before=$(pod_uids jade)
patch jade '{"release":"broken"}'
eventually "the gate stops it" reads GateFailed reason jade Serving
same "the release before is in force" 2 "$(tenant jade .status.release)"
eventually "its pods are gone" only 2
same "the pods of the release before were never touched" "$before" "$(pod_uids jade)"
sleep 2
read -r requests forgiven acknowledged <"$work/count"
printf '     %s requests failed until it was stopped\n' "$forgiven"
patch jade '{"release":"2"}'
ready jade
no_failures "after it was stopped"

begin "release 3 under load, and no way back behind a contraction"
operator "$releases/after-next/chart" 3
eventually "the operator after next writes its label" labelled revision-3
upgrade jade 3
no_failures "the upgrade to release 3"
eventually "the pods of release 2 are gone" only 3
pod=$(pods jade -o name | head -1)
kubectl exec -n tenant-jade "$pod" -c heyuan -- /usr/local/bin/heyuan migrate --contract --data /data --database-url-file /etc/heyuan/database/url >"$work/contracted" ||
  { cat "$work/contracted" >&2; fail "the schema was not contracted"; }
no_failures "a contraction"
patch jade '{"release":"1"}'
eventually "the way back is refused" reads RollbackRefused reason jade SchemaReady
same "release 3 goes on serving" "0.3.0 localhost/heyuan/heyuan:3" "$(serves) $(images jade)"
upgrade jade 2
same "one release back is allowed" 0.2.0 "$(serves)"
no_failures "a refused and a granted way back"
stop_load

stored() { api jade "$(admin_key jade)" POST /v1/query "{\"sql\":\"SELECT count(*), count(DISTINCT message_id) FROM events WHERE message_id LIKE 'load-%'\"}"; }
all_stored() { stored | "$python" -c 'import json,sys; all,distinct=json.load(sys.stdin)["rows"][0]; assert int(sys.argv[1]) <= all == distinct <= int(sys.argv[2]), (all, distinct, sys.argv)' "$acknowledged" $((acknowledged + failed)); }
eventually "every acknowledged event is stored" all_stored
ok "each of $acknowledged acknowledged events is stored once"

begin "SQLite: an upgrade with a copy"
events() { api opal "$(admin_key opal)" POST /v1/query "{\"sql\":\"SELECT count(*) FROM events WHERE message_id LIKE 'first-track-%'\"}" | json '["rows"][0][0]'; }
eventually "its events are stored" reads 5 events
upgrade opal 2
eventually "its events are still there" reads 5 events
ok "an embedded tenant is upgraded with its data"
folder=$(kubectl get persistentvolume "$(kubectl get persistentvolumeclaim -n tenant-opal heyuan -o 'jsonpath={.spec.volumeName}')" -o 'jsonpath={.spec.hostPath.path}')
copies() { find "$folder" -maxdepth 1 -name 'heyuan.db.before-*' | wc -l; }
eventually "the copy from before is removed" reads 0 copies
ok "the copy from before is removed when the gate is passed"
kubectl get jobs -n tenant-opal -o 'jsonpath={.items[*].spec.template.spec.containers[0].args}' | grep -q -- --keep-copy || fail "the file was migrated without a copy"
ok "the copy was asked for"

begin "an autoscaler with a metrics source"
scaled() { reads "$1" kubectl get deployment -n tenant-amber heyuan -o 'jsonpath={.status.readyReplicas}'; }
eventually "one pod at rest" scaled 1
rm -f "$work/count"
start_load amber 4 0
more() { [ "$(kubectl get deployment -n tenant-amber heyuan -o 'jsonpath={.status.readyReplicas}')" -ge 2 ]; }
eventually "more pods under load" more
ready amber
no_failures "scaling up"
stop_load
eventually "one pod afterwards" scaled 1
ready amber
ok "an autoscaler scales up under load and down again"

begin "deletion, the same name again, adoption"
data=$(tenant jade .status.dataId)
kubectl delete tenant jade --timeout=180s >/dev/null
same "the data is retained" 1 "$(sql -c "select count(*) from pg_database where datname = 'heyuan_$data'")"
for number in 1 2 3 4 5; do
  kubectl get persistentvolume "heyuan-$number" -o 'jsonpath={.status.phase}' | grep -qx Released || continue
  kubectl patch persistentvolume "heyuan-$number" --type=json -p '[{"op":"remove","path":"/spec/claimRef"}]' >/dev/null
done
since=$(now_ms)
apply_tenant jade 'database: {managed: {}}'
first_event jade "$since"
[ "$(tenant jade .status.dataId)" != "$data" ] || fail "a tenant of the same name has the old data"
ok "a tenant of the same name begins anew"
since=$(now_ms)
apply_tenant jasper "adopt: $data, release: \"2\", database: {managed: {}}"
first_event jasper "$since"
api jasper "$(admin_key jasper)" GET /v1/plugins | grep -q home-upgrader || fail "the adopted tenant has no plugin"
ok "the data is adopted"
slowest=$(printf '%s\n' "${firsts[@]}" | sort -n | tail -1)
[ "$slowest" -lt "$first_event_ms_max" ] || fail "a tenant took $slowest ms from apply to its first accepted event"
ok "from apply to the first accepted event: at most $slowest ms in ${#firsts[@]} tenants"

begin "helm uninstall"
"$helm" --kubeconfig "$("$cluster" kubeconfig)" uninstall heyuan --namespace "$system" --wait >/dev/null
same "tenants and their pods stay" "1 1" \
  "$(kubectl get tenant jasper -o name | wc -l) $(kubectl get deployment -n tenant-jasper heyuan -o 'jsonpath={.status.availableReplicas}')"

begin ''
printf '%s\n' "${parts[@]}"
printf 'test result: ok. %d passed; 0 failed; in %d min %02d s with real pods\n' "$passed" $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60))
