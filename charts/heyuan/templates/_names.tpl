{{/* Everything is called heyuan-operator: a cluster has one, and its roles are known by name. */}}
{{- define "heyuan.labels" -}}
app.kubernetes.io/name: heyuan-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: heyuan
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "heyuan.selector" -}}
app.kubernetes.io/name: heyuan-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "heyuan.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The operator's account, as the API server names it. */}}
{{- define "heyuan.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ .Values.serviceAccount.name }}
{{- end }}

{{/* What a schema can't say in readable words. */}}
{{- define "heyuan.check" -}}
{{- if contains ":" (.Values.image.repository | splitList "/" | last) -}}
{{- fail "image.repository: write it without a tag; the tag goes into image.tag, or better the digest into image.digest" -}}
{{- end -}}
{{- range .Values.operator.extraEnv -}}
{{- if hasPrefix "HEYUAN_OPERATOR_" .name -}}
{{- fail (printf "operator.extraEnv: %s is set by the chart; write it under `operator` in the values" .name) -}}
{{- end -}}
{{- end -}}
{{- if hasPrefix "tenant-" .Release.Namespace -}}
{{- fail (printf "the namespace %s is named like a tenant's; install the operator in another, as heyuan-system" .Release.Namespace) -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.service) -}}
{{- fail "metrics.serviceMonitor.enabled: it finds the operator by its Service, so metrics.service must be true" -}}
{{- end -}}
{{- end }}
