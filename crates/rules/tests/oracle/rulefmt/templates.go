package main

import (
	"math/rand"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"
)

// Template is one label or annotation with the verdict on it.
type Template struct {
	Text   string `json:"text"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

// editsPerTemplate is how many random edits each template contributes.
const editsPerTemplate = 14

// templates are what people write, and what tells most about the grammar.
var templates = []string{
	"", "plain", "{{ $value }}", "{{ $labels.instance }} is down", "{{$labels.instance}}", "{{ .Labels.job }}/{{ .Value }}", "{{ $externalLabels.region }}", "{{ $externalURL }}", "{{ $value | humanize }}", "{{ $value | humanizePercentage }} of {{ $labels.mountpoint }}", "{{ printf \"%.2f\" $value }}%", "{{ with query \"up\" }}{{ . | first | value }}{{ end }}", "{{ range query \"up\" | sortByLabel \"instance\" }}{{ .Labels.instance }}: {{ .Value }}\n{{ end }}", "{{ \"up\" | query | first | label \"job\" }}", "{{ $q := \"up\" }}{{ query $q }}", "{{ $q := printf \"up{job='%s'}\" .Labels.job }}{{ query $q | first | value }}", "{{ define \"x\" }}{{ query . }}{{ end }}{{ template \"x\" \"up\" }}", "{{ define \"x\" }}a{{ end }}{{ define \"x\" }}b{{ end }}", "{{ define \"x\" }} {{ end }}{{ define \"x\" }}b{{ end }}", "{{ define \"__alert_Alert\" }}b{{ end }}", "{{ define \"__alert_Alert\" }}{{/* b */}} {{ end }}", "{{ define `x` }}{{ end }}", "{{ define x }}{{ end }}", "{{ define \"x\" }}{{ $value }}{{ end }}", "{{ define \"x\" }}{{ $ }}{{ end }}", "{{ if true }}{{ define \"x\" }}{{ end }}{{ end }}", "{{ block \"x\" . }}{{ .Value }}{{ end }}", "{{ block \"x\" }}{{ end }}", "{{ block \"x\" . }}{{ $labels }}{{ end }}", "{{ template \"x\" }}", "{{ template \"x\" . }}", "{{ template x }}", "{{ template \"x\" . | len }}",
	"{{ if gt $value 1.0 }}a{{ else }}b{{ end }}", "{{ if eq $labels.a \"b\" }}a{{ else if eq $labels.a \"c\" }}b{{ else }}c{{ end }}", "{{ if true }}a{{ else if }}b{{ end }}", "{{ with $x := 1 }}{{ $x }}{{ else with 2 }}{{ . }}{{ end }}", "{{ with 1 }}{{ else if 2 }}{{ end }}", "{{ range $i, $e := .Labels }}{{ $i }}{{ $e }}{{ else }}none{{ end }}", "{{ range $i, $e := .Labels }}{{ break }}{{ continue }}{{ end }}", "{{ break }}", "{{ range .Labels }}{{ block \"x\" . }}{{ break }}{{ end }}{{ end }}", "{{ range $a, $b, $c := .Labels }}{{ end }}", "{{ range $a }}{{ end }}", "{{ range $a, }}{{ end }}", "{{ range $a, 5 }}{{ end }}", "{{ $a, $b := 1 }}", "{{ if $a, $b := 1 }}{{ end }}", "{{ range 5 }}{{ end }}", "{{ range .Labels }}{{ else range .Labels }}{{ end }}",
	"{{ $x := 1 }}{{ $x = 2 }}{{ $x }}", "{{ $x }}", "{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}", "{{ if $x := 1 }}{{ end }}{{ $x }}", "{{ $x = 2 }}{{ $x }}", "{{ ($x := 1) }}{{ $x }}", "{{ $x:=1 }}", "{{ $x :1 }}", "{{ $ }}", "{{ $.Labels }}", "{{ $labels }}", "{{ $labels.a.b.c }}", "{{ (index $labels \"a\").b }}", "{{ (.Labels).a }}", "{{ .Labels . a }}", "{{ . }}", "{{ .. }}", "{{ .a..b }}", "{{ ..a }}", "{{ query.a \"up\" }}", "{{ .1 }}", "{{ . 1 }}", "{{ $1 }}",
	"{{ \"a\" }}", "{{ `a\nb` }}", "{{ \"a\nb\" }}", "{{ \"\\n\\t\\x41\\u00e9\\U0001F980\\101\" }}", "{{ \"\\q\" }}", "{{ \"\\'\" }}", "{{ \"\\ud800\" }}", "{{ \"\\xff\" }}", "{{ \"\\400\" }}", "{{ \"\\\"\" }}", "{{ \"}}\" }}", "{{ `}}` }}", "{{ 'a' }}", "{{ '\\n' }}", "{{ '\\'' }}", "{{ '' }}", "{{ 'ab' }}", "{{ '\\\"' }}", "{{ 'é' }}", "{{ \"a }}", "{{ `a }}", "{{ 'a }}",
	"{{ 1 }}{{ -1 }}{{ +1 }}{{ 0 }}{{ -0 }}{{ 00 }}{{ 017 }}", "{{ 08 }}", "{{ 0o17 }}{{ 0b11 }}{{ 0x1F }}{{ 0X1f }}", "{{ 0o8 }}", "{{ 0b2 }}", "{{ 0x }}", "{{ 0xg }}", "{{ 1_000 }}", "{{ 1__0 }}", "{{ 1_ }}", "{{ 0_1 }}", "{{ 0x_1 }}", "{{ 1_0.5 }}", "{{ 1._5 }}", "{{ 1.5 }}{{ .5 }}{{ 5. }}{{ 1e5 }}{{ 1E-5 }}", "{{ 1e }}", "{{ 1e999 }}", "{{ 0x1p4 }}{{ 0x1.8p-1 }}{{ 0x.8p1 }}", "{{ 0x1.8 }}", "{{ 0x1p2000 }}", "{{ 0x0p2000 }}", "{{ 1i }}{{ 1+2i }}{{ 1-2.5i }}", "{{ 1+2 }}", "{{ 1+ }}", "{{ 9223372036854775807 }}{{ -9223372036854775808 }}{{ 18446744073709551615 }}", "{{ 18446744073709551616 }}", "{{ -9223372036854775809 }}", "{{ 1a }}", "{{ 1.2.3 }}", "{{ - }}", "{{ 1e5i }}", "{{ 0x1i }}", "{{ 017i }}", "{{ 1e+2+3i }}", "{{ +5 }}", "{{ 0b11i }}",
	"{{ nil }}", "{{ true }}{{ false }}", "{{ true.a }}", "{{ nil.a }}", "{{ \"a\".b }}", "{{ 1 | print }}", "{{ print 1 | 2 }}", "{{ print 1 | \"a\" }}", "{{ print 1 | . }}", "{{ print 1 | .a }}", "{{ print 1 | $value }}", "{{ print 1 | nil }}", "{{ print 1 | (2) }}", "{{ print 1 | true }}", "{{ .a | }}", "{{ | .a }}", "{{ }}", "{{}}", "{{ () }}", "{{ (1) }}", "{{ ((1)) }}", "{{ (1 }}", "{{ 1) }}", "{{ (1)) }}", "{{ (print 1 2) }}", "{{ print (print 1) (print 2).a }}", "{{ print ( ) }}", "{{ print, 1 }}", "{{ print 1, 2 }}", "{{ print $ }}", "{{ print a }}", "{{ foo }}", "{{ humanise $value }}", "{{ tmpl \"x\" . }}", "{{ and 1 2 | or 3 | not }}", "{{ call .a 1 }}{{ html 1 }}{{ index . 1 }}{{ slice . 1 }}{{ js 1 }}{{ len . }}{{ urlquery . }}{{ ne 1 2 }}{{ lt 1 2 }}{{ le 1 2 }}{{ ge 1 2 }}{{ println }}", "{{ args 1 2 }}{{ safeHtml \"\" }}{{ match \"a\" \"b\" }}{{ title \"a\" }}{{ toUpper \"a\" }}{{ toLower \"a\" }}{{ graphLink \"up\" }}{{ tableLink \"up\" }}{{ reReplaceAll \"a\" \"b\" \"c\" }}", "{{ stripPort \"a:1\" }}{{ stripDomain \"a.b\" }}{{ humanize1024 1 }}{{ humanizeDuration 1 }}{{ humanizeTimestamp 1 }}{{ toTime 1 }}{{ toDuration 1 }}{{ now }}{{ pathPrefix }}{{ externalURL }}{{ parseDuration \"1m\" }}{{ urlQueryEscape \"a\" }}{{ strvalue . }}{{ value . }}{{ first . }}",
	"{{- $value -}}", "a {{- $value -}} b", "{{-$value-}}", "{{- -1 -}}", "{{-3}}", "{{ 3 -}}", "{{ 3-}}", "{{ 3 - }}", "{{ 3 -1 }}", "{{/* a */}}", "{{- /* a */ -}}", "{{ /* a */ }}", "{{/* a */ }}", "{{/* a }}", "{{/* a */ b}}", "a{{- /* {{ }} */ -}}b", "{{ end }}", "{{ else }}", "{{ if true }}", "{{ if true }}a{{ else }}b{{ else }}c{{ end }}", "{{ if true }}{{ end }}{{ end }}", "{{ if }}{{ end }}", "{{ with }}{{ end }}", "{{ range }}{{ end }}", "{{ end 1 }}", "{{ else 1 }}", "{{ if true }}{{ end", "{{ if true }}\n\n{{", "{{", "}}", "{ { a } }", "{{{ 1 }}}", "{{ {1} }}", "{{ a }", "{{ \n 1 \n }}", "{{\t1\r\n}}", "{{ @ }}", "{{ # }}", "{{ \\ }}", "{{ ä }}", "{{ .ä }}", "{{ $ä := 1 }}{{ $ä }}", "{{ .a-b }}", "{{ .a }}-{{ .b }}", "{{ $labels.a-b }}", "{{ $labels.\"a\" }}", "{{ \u00a0 }}", "{{ \u2713 }}", "{{ .a=1 }}", "{{ a:=1 }}", "{{ $x := }}", "{{ $x := 1 2 }}", "{{ :=1 }}", "{{ = }}", "{{ if true }}{{ else if false }}{{ else if false }}{{ else }}{{ end }}", "{{ break 1 }}", "{{ range .a }}{{ break }}{{ else }}{{ break }}{{ end }}", "{{ range .a }}{{ define \"x\" }}{{ end }}{{ end }}", "{{ define \"x\" }}{{ define \"y\" }}{{ end }}{{ end }}", "{{ define \"x\" }}{{ else }}{{ end }}", "{{ define \"x\" }}", "{{ define \"x\" 1 }}{{ end }}", "{{ define \"\\q\" }}{{ end }}", "{{define \"x\"}}{{template \"x\"}}{{end}}",
}

// parts are what an edit puts somewhere.
var parts = []string{"{{", "}}", " ", "(", ")", "|", "\"", "`", "'", ".", "$", "$x", ":=", "=", ",", "-", " -}}", "{{- ", "1", "a", "end", "else", "if", "range", "with", "define", "template", "query", "/*", "*/", "\\", "\n", "nil", "{{ end }}", "{{ if 1 }}", "{{ range 1 }}", "print", "é", "0x", "_", "i", "+"}

func templateCorpus() []string {
	random := rand.New(rand.NewSource(16))
	out := append([]string(nil), templates...)
	for _, text := range templates {
		for range editsPerTemplate {
			at := random.Intn(len(text) + 1)
			edited := text[:at] + parts[random.Intn(len(parts))] + text[at:]
			if end := at + 1 + random.Intn(3); random.Intn(2) == 0 && end <= len(text) {
				edited = text[:at] + text[end:]
			}
			out = append(out, strings.ToValidUTF8(edited, "?"))
		}
	}
	return append(out, "{{ "+strings.Repeat("(", 150)+"1"+strings.Repeat(")", 150)+" }}")
}

// judge says what Prometheus thinks of a template when it loads a rule file.
func judge(text string) Template {
	defs := "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}"
	data := template.AlertTemplateData(nil, nil, "", promql.Sample{})
	now := model.Time(timestamp.FromTime(time.Unix(0, 0)))
	expander := template.NewTemplateExpander(nil, defs+text, "__alert_Alert", data, now, nil, nil, nil)
	verdict := Template{Text: text, OK: true}
	if err := expander.ParseTest(); err != nil {
		verdict.OK, verdict.Reason = false, err.Error()
	}
	return verdict
}
