#!/usr/bin/env bash
# A whole Kubernetes on this machine, with a kubelet and real pods: one node, for `make cluster` and the tests that need pods.
#
#   scripts/cluster.sh up                   start what is not running and wait until the node is ready
#   scripts/cluster.sh down                 stop it and remove everything that it made
#   scripts/cluster.sh status               what runs; fails unless the node is ready
#   scripts/cluster.sh can                  says why a cluster can't run here, in one line, or nothing
#   scripts/cluster.sh load FILE.tar...     import images that scripts/image.sh made
#   scripts/cluster.sh image NAME:TAG PROGRAM...
#                                           make an image of programs and import it, as of target/release/heyuan
#   scripts/cluster.sh kubectl ARGUMENT...  kubectl as the cluster's administrator
#
# There is one cluster a machine, whichever checkout started it. Its traffic stays on loopback, on a bridge of its own and between pods:
# pods reach each other, services (also by name) and the node (so also a PostgreSQL that listens on the node's address), and nothing beyond.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# What it keeps until it goes down. Sockets have short names, since a kernel takes 107 bytes.
folder=/var/lib/heyuan-cluster
run=/run/heyuan-cluster
kubernetes=$HEYUAN_CACHE/tools/kubernetes
coredns=$HEYUAN_CACHE/tools/bin/coredns
metrics_server=$HEYUAN_CACHE/tools/bin/metrics-server
certificates=$folder/certificates
kubeconfig=$certificates/admin.kubeconfig
pause_image=localhost/heyuan/pause:1

bridge=heyuan0
node=heyuan
node_address=10.213.0.1
network=10.213.0.0/16
pods=10.213.1.0/24
services=10.213.64.0/18
etcd=127.0.0.1:12379
etcd_peers=127.0.0.1:12380
api_server=$node_address:6443
metrics_port=4443

# Settings of the kernel that the kubelet and the pods' network change; put back by `down`.
kernel_settings=(net/ipv4/ip_forward vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes)

programs=(etcd kube-apiserver kube-controller-manager kube-scheduler containerd kubelet kube-proxy)
[ ! -x "$coredns" ] || programs+=(coredns)
[ ! -x "$metrics_server" ] || programs+=(metrics-server)
start_seconds_max=120
stop_seconds_max=30

kubectl() { env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY KUBECONFIG="$kubeconfig" "$kubernetes" kubectl "$@"; }
ctr() { command ctr --address "$run/containerd.sock" --namespace k8s.io "$@"; }

# why_not: the first reason why a cluster can't run on this machine.
why_not() {
  local program plugin
  [ "$(uname -s)" = Linux ] || { echo "a cluster needs Linux"; return; }
  [ "$(id -u)" -eq 0 ] || { echo "a cluster needs root: it makes namespaces, a bridge and mounts"; return; }
  for program in etcd containerd ctr runc nft ip openssl cc; do
    command -v "$program" >/dev/null || { echo "$program is missing: run \`scripts/setup.sh cluster\` first"; return; }
  done
  for plugin in ptp host-local loopback; do
    [ -x "/usr/lib/cni/$plugin" ] || { echo "the network plugin $plugin is missing: run \`scripts/setup.sh cluster\` first"; return; }
  done
  [ -x "$kubernetes" ] || { echo "$kubernetes is missing: run \`scripts/setup.sh cluster\` first"; return; }
  if [ ! -d "$folder" ] && pod_groups_exist; then echo "another kubelet has pods on this machine"; return; fi
  if ! [ -e "/sys/class/net/$bridge" ]; then
    ip link add "$bridge" type bridge 2>/dev/null || { echo "this user may not make network devices"; return; }
    ip link del "$bridge"
    [ -z "$(ip -4 route show root "$network")" ] || echo "this machine has a route into $network already"
  fi
}

# A kubelet keeps the control groups of its pods under this name.
pod_groups_exist() { [ -n "$(find /sys/fs/cgroup -type d -name kubepods -print -quit 2>/dev/null)" ]; }

# running NAME: its process is there and is what was started.
running() {
  local pid
  pid=$(cat "$run/$1.pid" 2>/dev/null) && [ -d "/proc/$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$folder\|$run"
}

# program NAME COMMAND...: starts it unless it runs, apart from this terminal, with its log in the cluster's folder.
program() {
  local name=$1
  shift
  running "$name" && return 0
  (
    cd "$folder"
    exec setsid env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY sh -c 'echo $$ >"$0" && exec "$@"' "$run/$name.pid" "$@" </dev/null >>"$folder/$name.log" 2>&1
  ) &
}

# wait_for WHAT NAME COMMAND...: polls; a program NAME that ends meanwhile ends the wait with the end of its log.
wait_for() {
  local what=$1 name=$2 started=$SECONDS
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $((SECONDS - started)) -gt 3 ] && ! running "$name"; then
      tail -n 20 "$folder/$name.log" >&2
      fail "$name ended while waiting: $what (its log is $folder/$name.log)"
    fi
    [ $((SECONDS - started)) -lt $start_seconds_max ] || fail "waited $start_seconds_max s in vain: $what ($folder/$name.log may say why)"
    sleep 0.2
  done
}

make_network() {
  local setting
  mkdir -p "$folder/sysctl"
  for setting in "${kernel_settings[@]}"; do
    [ -e "$folder/sysctl/${setting//\//.}" ] || cat "/proc/sys/$setting" >"$folder/sysctl/${setting//\//.}"
  done
  [ -e "/sys/class/net/$bridge" ] || ip link add "$bridge" type bridge
  ip address replace "$node_address/24" dev "$bridge"
  ip link set "$bridge" up
  # What no service answers dies on the bridge instead of leaving by the default route.
  ip route replace "$services" dev "$bridge"
  echo 1 >/proc/sys/net/ipv4/ip_forward
  nft delete table inet heyuan-cluster 2>/dev/null || true
  nft -f - <<RULES
table inet heyuan-cluster {
  chain forward {
    type filter hook forward priority -10; policy accept;
    ip saddr $network ip daddr != $network reject
    ip saddr != $network ip daddr $network drop
  }
}
RULES
}

write_settings() {
  mkdir -p "$folder/cni" "$folder/kubelet"
  [ -s "$kubeconfig" ] || "$root/tests/kubernetes/certificates.sh" "$certificates" "$api_server" "$node" "$node_address" "${services%.*}.1"
  : >"$folder/resolv.conf"
  # Every pod has a line of its own to the node, so that all packets are routed and none takes a short cut past the services' rules.
  cat >"$folder/cni/10-heyuan.conflist" <<CONFIG
{"cniVersion": "0.4.0", "name": "heyuan", "plugins": [
  {"type": "ptp", "ipMasq": false,
   "ipam": {"type": "host-local", "dataDir": "$folder/addresses", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
CONFIG
  # Root without CAP_SYS_RESOURCE may not make a process likelier to survive than itself.
  cat >"$folder/containerd.toml" <<CONFIG
version = 2
root = "$folder/containerd"
state = "$run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "$run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$pause_image"
restrict_oom_score_adj = true
disable_apparmor = true
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$folder/cni"
CONFIG
  cat >"$folder/kubelet.yaml" <<CONFIG
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $node_address
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $certificates/ca.crt}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://$run/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
resolvConf: $folder/resolv.conf
clusterDNS: [$node_address]
clusterDomain: cluster.local
podLogsDir: $folder/logs
# A changed secret is in its pods within seconds.
syncFrequency: 10s
volumePluginDir: $folder/kubelet/volume-plugins
# Images were imported by hand, from nowhere that has them; and a developer's full disk is no reason to evict.
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
CONFIG
  # It asks nobody else: names outside the cluster don't exist here.
  cat >"$folder/Corefile" <<CONFIG
cluster.local:53 {
  bind $node_address
  errors
  kubernetes cluster.local {
    kubeconfig $kubeconfig
  }
}
.:53 {
  bind $node_address
  errors
  template ANY ANY {
    rcode NXDOMAIN
  }
}
CONFIG
  cat >"$folder/kube-proxy.yaml" <<CONFIG
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $certificates/kube-proxy.kubeconfig}
clusterCIDR: $pods
hostnameOverride: $node
nodePortAddresses: [$node_address/32]
bindAddress: $node_address
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
# The machine's own limits stay.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
CONFIG
}

start_control_plane() {
  program etcd etcd --unsafe-no-fsync --logger=zap --data-dir="$folder/etcd" \
    --listen-client-urls="http://$etcd" --advertise-client-urls="http://$etcd" \
    --listen-peer-urls="http://$etcd_peers" --initial-advertise-peer-urls="http://$etcd_peers" --initial-cluster="default=http://$etcd_peers"
  program kube-apiserver "$kubernetes" kube-apiserver --etcd-servers="http://$etcd" \
    --bind-address="$node_address" --advertise-address="$node_address" --secure-port="${api_server#*:}" \
    --service-cluster-ip-range="$services" --allow-privileged --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --tls-cert-file="$certificates/server.crt" --tls-private-key-file="$certificates/server.key" --client-ca-file="$certificates/ca.crt" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$certificates/service-account.pub" --service-account-signing-key-file="$certificates/service-account.key" \
    --kubelet-client-certificate="$certificates/admin.crt" --kubelet-client-key="$certificates/admin.key" \
    --kubelet-preferred-address-types=InternalIP \
    --requestheader-client-ca-file="$certificates/aggregator-ca.crt" --requestheader-allowed-names=aggregator \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$certificates/aggregator.crt" --proxy-client-key-file="$certificates/aggregator.key" --enable-aggregator-routing
  wait_for "the API server is ready" kube-apiserver kubectl get --raw /readyz
  program kube-controller-manager "$kubernetes" kube-controller-manager --kubeconfig="$certificates/controller-manager.kubeconfig" \
    --use-service-account-credentials --service-account-private-key-file="$certificates/service-account.key" --root-ca-file="$certificates/ca.crt" \
    --leader-elect=false --bind-address=127.0.0.1 --secure-port=0 \
    --horizontal-pod-autoscaler-sync-period=5s --horizontal-pod-autoscaler-downscale-stabilization=30s \
    --horizontal-pod-autoscaler-cpu-initialization-period=20s --horizontal-pod-autoscaler-initial-readiness-delay=5s
  program kube-scheduler "$kubernetes" kube-scheduler --kubeconfig="$certificates/scheduler.kubeconfig" --leader-elect=false --secure-port=0
  if [ -x "$coredns" ]; then
    program coredns "$coredns" -conf "$folder/Corefile"
  else
    say "services have addresses and no names: $coredns is missing (\`scripts/setup.sh cluster\` builds it)"
  fi
}

start_node() {
  local pause=$folder/pause
  program containerd containerd --config "$folder/containerd.toml"
  wait_for "containerd answers" containerd ctr version
  if [ -z "$(ctr images list --quiet "name==$pause_image")" ]; then
    cc -O2 -static -o "$pause" "$root/tests/kubernetes/pause.c"
    image "$pause_image" "$pause"
  fi
  program kubelet "$kubernetes" kubelet --config="$folder/kubelet.yaml" --kubeconfig="$certificates/kubelet.kubeconfig" \
    --hostname-override="$node" --node-ip="$node_address" --root-dir="$folder/kubelet" --cert-dir="$folder/kubelet/pki"
  program kube-proxy "$kubernetes" kube-proxy --config="$folder/kube-proxy.yaml"
  wait_for "the node is ready" kubelet node_ready
  # Pods can't be made in a namespace before its account is.
  wait_for "the default account is there" kube-controller-manager kubectl get serviceaccount default
}

# What pods use, for autoscalers: a program beside the control plane, which the API server reaches as a service without pods.
start_metrics() {
  if [ ! -x "$metrics_server" ]; then
    say "nothing tells what pods use: $metrics_server is missing (\`scripts/setup.sh cluster\` builds it)"
    return 0
  fi
  program metrics-server "$metrics_server" --kubeconfig="$kubeconfig" --authentication-kubeconfig="$kubeconfig" \
    --authorization-kubeconfig="$kubeconfig" --bind-address="$node_address" --secure-port="$metrics_port" --cert-dir="$folder/metrics-server" \
    --kubelet-insecure-tls --kubelet-preferred-address-types=InternalIP --metric-resolution=10s --kubelet-request-timeout=5s
  kubectl apply -f - >/dev/null <<OBJECTS
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec: {ports: [{name: https, port: 443, targetPort: $metrics_port}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metrics-server, namespace: kube-system, labels: {kubernetes.io/service-name: metrics-server}}
addressType: IPv4
ports: [{name: https, port: $metrics_port}]
endpoints: [{addresses: [$node_address]}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: metrics-server, namespace: kube-system}
OBJECTS
}

node_ready() { [ "$(kubectl get node "$node" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]; }

load() {
  local image
  for image in "$@"; do ctr images import "$image" >&2; done
}

image() {
  local archive status=0
  archive=$(mktemp --suffix .tar)
  "$root/scripts/image.sh" "$1" "$archive" "${@:2}" && load "$archive" || status=$?
  rm -f "$archive"
  return $status
}

up() {
  local reason
  reason=$(why_not)
  [ -z "$reason" ] || fail "$reason"
  mkdir -p "$folder" "$run"
  make_network
  write_settings
  start_control_plane
  start_node
  start_metrics
  say "the cluster is up: export KUBECONFIG=$kubeconfig NO_PROXY=$network"
}

status() {
  local name ready=0
  for name in "${programs[@]}"; do
    if running "$name"; then
      printf '%-24s running\n' "$name"
    else
      printf '%-24s not running\n' "$name"
      ready=1
    fi
  done
  if [ ! -x "$kubernetes" ] || ! node_ready 2>/dev/null; then ready=1; fi
  if [ $ready -eq 0 ]; then echo "the node is ready"; else echo "the node is not ready"; fi
  return $ready
}

# stop NAME: asks it to end, and makes it.
stop() {
  local name=$1 pid started=$SECONDS
  running "$name" || { rm -f "$run/$name.pid"; return 0; }
  pid=$(cat "$run/$name.pid")
  kill "$pid" 2>/dev/null || true
  while running "$name"; do
    [ $((SECONDS - started)) -lt 5 ] || kill -9 "$pid" 2>/dev/null || true
    [ $((SECONDS - started)) -lt $stop_seconds_max ] || fail "$name does not end"
    sleep 0.1
  done
  rm -f "$run/$name.pid"
}

# Pods end in an orderly way where everything works: the kubelet then takes their mounts, devices and addresses away.
end_pods() {
  stop kube-controller-manager
  running kube-apiserver && running kubelet && running containerd || return 0
  kubectl delete pods --all --all-namespaces --grace-period=1 --timeout="${stop_seconds_max}s" >/dev/null 2>&1 ||
    say "not all pods ended in order; the rest is removed by force"
}

# What is left of pods whose kubelet or containerd died before them.
remove_pods() {
  local task pid namespace mount sandbox
  if running containerd; then
    for task in $(ctr tasks list --quiet 2>/dev/null); do ctr tasks delete --force "$task" >/dev/null 2>&1 || true; done
  fi
  stop containerd
  for pid in $(pgrep -f "containerd-shim.* -address $run/containerd.sock" || true); do kill -9 "$pid" 2>/dev/null || true; done
  end_orphans
  for namespace in $(ip netns list 2>/dev/null | cut -d' ' -f1 | grep '^cni-' || true); do
    ! ip -n "$namespace" -4 address 2>/dev/null | grep -q " ${pods%.*}\." || ip netns delete "$namespace"
  done
  for mount in $(awk -v folder="$folder/" -v run="$run/" 'index($5, folder) == 1 || index($5, run) == 1 { print $5 }' /proc/self/mountinfo | sort -r); do
    umount --lazy "$mount" 2>/dev/null || true
  done
  for sandbox in "$folder"/containerd/io.containerd.grpc.v1.cri/sandboxes/*; do rm -f "/var/lib/cni/results/"*"-$(basename "$sandbox")-"*; done
}

# Processes of pods whose shim is gone have no parent that ends them; their control groups still name them.
end_orphans() {
  local started=$SECONDS
  while pod_groups_exist; do
    find /sys/fs/cgroup -path '*/kubepods*' -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | xargs -r kill -9 2>/dev/null || true
    find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} + 2>/dev/null || true
    [ $((SECONDS - started)) -lt $stop_seconds_max ] || fail "processes of pods do not end: see kubepods below /sys/fs/cgroup"
    sleep 0.1
  done
}

remove_network() {
  local table setting
  for table in 'ip kube-proxy' 'ip6 kube-proxy' 'inet heyuan-cluster'; do
    # shellcheck disable=SC2086
    nft delete table $table 2>/dev/null || true
  done
  [ ! -e "/sys/class/net/$bridge" ] || ip link del "$bridge"
  for setting in "${kernel_settings[@]}"; do
    [ ! -e "$folder/sysctl/${setting//\//.}" ] || cat "$folder/sysctl/${setting//\//.}" >"/proc/sys/$setting" 2>/dev/null || true
  done
}

down() {
  local name
  [ -d "$folder" ] || [ -d "$run" ] || { say "no cluster is here"; return 0; }
  [ "$(id -u)" -eq 0 ] || fail "only root can stop the cluster"
  end_pods
  stop kubelet
  stop kube-proxy
  remove_pods
  for name in metrics-server kube-scheduler coredns kube-apiserver etcd; do stop "$name"; done
  remove_network
  rm -rf "$folder" "$run"
  say "the cluster is down"
}

case ${1:-} in
  up | down | status) "$1" ;;
  can) why_not ;;
  kubeconfig) printf '%s\n' "$kubeconfig" ;;
  logs) printf '%s\n' "$folder/logs" ;;
  load | image | kubectl) "$@" ;;
  *) fail "usage: scripts/cluster.sh up|down|status|can|kubeconfig|logs|load FILE.tar...|image NAME:TAG PROGRAM...|kubectl ARGUMENT..." ;;
esac
