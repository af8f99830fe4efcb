{{/* Names and blocks that more than one template needs. */}}

{{/* Of every object; call with (list $ "component"). */}}
{{- define "podwall.labels" -}}
{{- $root := index . 0 -}}
{{ include "podwall.selector" . }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What pods are selected by: never more than this, because a selector cannot be changed later. */}}
{{- define "podwall.selector" -}}
app.kubernetes.io/name: podwall
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Of pods: nothing that changes with the chart's version alone, or every upgrade would restart every agent. */}}
{{- define "podwall.podLabels" -}}
{{ include "podwall.selector" . }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{- define "podwall.image" -}}
{{- $variant := eq .Values.agent.backend "iptables" | ternary "-iptables" "" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default (print .Chart.AppVersion $variant)) -}}
{{- end }}

{{/* image, its pull policy, and nothing when Kubernetes is to decide. */}}
{{- define "podwall.container.image" -}}
image: {{ include "podwall.image" . | quote }}
{{- with .Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}

{{- define "podwall.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Does a Prometheus come for the agents' metrics? Then they cannot listen on loopback only. */}}
{{- define "podwall.scraped" -}}
{{- if or .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled }}yes{{ end -}}
{{- end }}

{{- define "podwall.agent.address" -}}
{{- .Values.agent.address | default (ternary "0.0.0.0" "127.0.0.1" (eq (include "podwall.scraped" .) "yes")) -}}
{{- end }}

{{- define "podwall.agent.listen" -}}
{{- $address := include "podwall.agent.address" . -}}
{{- printf "%s:%v" (contains ":" $address | ternary (printf "[%s]" $address) $address) .Values.agent.port -}}
{{- end }}

{{/* Where the kubelet, which is in the same network, finds that: wildcards are reached on loopback. */}}
{{- define "podwall.agent.probed" -}}
{{- $address := include "podwall.agent.address" . -}}
{{- if eq $address "0.0.0.0" }}127.0.0.1{{ else if eq $address "::" }}::1{{ else }}{{ $address }}{{ end -}}
{{- end }}

{{/* No more than the work needs; what is added is the caller's business. */}}
{{- define "podwall.confined" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
seccompProfile: {type: RuntimeDefault}
{{- end }}
