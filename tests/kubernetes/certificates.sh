#!/usr/bin/env bash
# Makes the certificates and kubeconfigs of one cluster that lives for a run or a day.
#
#   certificates.sh FOLDER HOST:PORT NODE [ADDRESS...]
#
# FOLDER gets ca.{crt,key}, server.{crt,key} (for 127.0.0.1, the names of the API server and each further ADDRESS), service-account.{key,pub},
# aggregator-ca.crt and aggregator.{crt,key}, and for each identity NAME.{crt,key} and NAME.kubeconfig, which speaks to https://HOST:PORT.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: certificates.sh FOLDER HOST:PORT NODE [ADDRESS...]" >&2; exit 2; }
folder=$1 server=$2 node=$3
shift 3
mkdir -p "$folder"
cd "$folder"
umask 077

# Longer than any cluster of a test or a developer lives.
days=365

key() { openssl ecparam -genkey -name prime256v1 -noout -out "$1"; }

# authority NAME: a certificate that signs others.
authority() {
  key "$1.key"
  openssl req -x509 -new -sha256 -key "$1.key" -days "$days" -subj "/CN=$1" -out "$1.crt"
}

# signed NAME AUTHORITY SUBJECT EXTENSION...: a certificate and its key.
signed() {
  local name=$1 by=$2 subject=$3
  shift 3
  key "$name.key"
  openssl req -new -sha256 -key "$name.key" -subj "$subject" |
    openssl x509 -req -sha256 -CA "$by.crt" -CAkey "$by.key" -set_serial "0x$(openssl rand -hex 8)" -days "$days" -out "$name.crt" \
      -extfile <(printf '%s\n' "$@") 2>/dev/null
}

# identity NAME SUBJECT: a client certificate and the kubeconfig that shows it.
identity() {
  signed "$1" ca "$2" 'extendedKeyUsage=clientAuth'
  cat >"$1.kubeconfig" <<CONFIG
apiVersion: v1
kind: Config
current-context: heyuan
contexts: [{name: heyuan, context: {cluster: heyuan, user: heyuan}}]
clusters: [{name: heyuan, cluster: {server: "https://$server", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: heyuan, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
CONFIG
}

addresses=IP:127.0.0.1
for address in "$@"; do addresses+=,IP:$address; done

authority ca
authority aggregator-ca
signed aggregator aggregator-ca /CN=aggregator 'extendedKeyUsage=clientAuth'
signed server ca /CN=kubernetes 'extendedKeyUsage=serverAuth,clientAuth' \
  "subjectAltName=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,$addresses"
identity admin /O=system:masters/CN=heyuan-admin
identity controller-manager /CN=system:kube-controller-manager
identity scheduler /CN=system:kube-scheduler
identity kubelet "/O=system:nodes/CN=system:node:$node"
identity kube-proxy /CN=system:kube-proxy
key service-account.key
openssl ec -in service-account.key -pubout -out service-account.pub 2>/dev/null
