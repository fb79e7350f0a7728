package main

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Text is one file of the corpus before anybody has judged it.
type Text struct{ Name, Text string }

// mutationsPerSeed is how many random edits each seed contributes.
const mutationsPerSeed = 60

// scalars are values that take the place of another one.
var scalars = []string{
	"", "~", "null", "Null", "nULL", "\"\"", "''", "0", "00", "-1", "5", "1.0", "1.5", "1e2", "-.inf", ".nan", "0x10",
	"0o17", "017", "0b11", "1_000", "_1", "9223372036854775807", "9223372036854775808", "18446744073709551616",
	"true", "yes", "on", "No", "2024-01-01", "2024-01-01T00:00:00Z", "a", "a b", "\"5\"", "'5'", "!!str 5", "!!int 5", "!!int x",
	"!!float 5", "!!float 1.5", "!!null x", "!!null", "!!bool true", "!!bool yes", "!!binary aGVsbG8=", "!!binary '*'", "!custom x", "! x", "! 5",
	"!<tag:yaml.org,2002:str> 5", "[]", "{}", "[a]", "{a: b}", "[~]", "|\n          a\n          b", ">\n          a\n          b", "|+\n          a\n\n", ">-\n          a\n\n          b",
	"1m", "1h30m", "30m1h", "1m1m", "1y2w3d4h5m6s7ms", "1 m", "1M", "-1m", "0s", "00s", "1.5h", "300y", "292y", "106752d", "1ms", "1us", "m",
	"*missing", "&x 1m", "&x", "*x", "up", "up{", "sum(", "\"\\x41\\u00e9\\U0001F980\"", "\"a\\\n          b\"", "\"\\q\"", "'it''s'", "\"\\/\"", "\"\\ud800\"", "'a\n\n          b'",
	"a: b", "a #b", "a#b", "- a", "-a", "@a", "`a`", "%a", "&", "*", "!", "|", ">", "? a", ":a", "a:", "?a", "{{ x }}", "\"{{ x }}\"", "[a, b", "{a: b", "\"a", "'a", "a\tb", "\ta", "\"a\tb\"",
	"a'b", "a\"b", "0.0.0", "1e400", "+5", "5.", ".5", "+.inf", "<<", "=",
}

// places are files with a hole for a scalar.
var places = []struct{ name, text string }{
	{"interval", "groups:\n  - name: a\n    interval: %s\n    rules: []\n"},
	{"limit", "groups:\n  - name: a\n    limit: %s\n"},
	{"expr", "groups:\n  - name: a\n    rules:\n      - record: b\n        expr: %s\n"},
	{"label", "groups:\n  - name: a\n    rules:\n      - alert: b\n        expr: up\n        labels:\n          c: %s\n"},
}

// few are the places for the scalars that tell most.
var few = []struct{ name, text string }{
	{"query_offset", "groups:\n  - name: a\n    query_offset: %s\n"},
	{"name", "groups:\n  - name: %s\n"},
	{"record", "groups:\n  - name: a\n    rules:\n      - record: %s\n        expr: up\n"},
	{"for of a record", "groups:\n  - name: a\n    rules:\n      - record: b\n        expr: up\n        for: %s\n"},
	{"keep_firing_for", "groups:\n  - name: a\n    rules:\n      - alert: b\n        expr: up\n        keep_firing_for: %s\n"},
	{"labels", "groups:\n  - name: a\n    labels: %s\n"},
	{"rules", "groups:\n  - name: a\n    rules: %s\n"},
	{"rule", "groups:\n  - name: a\n    rules:\n      - %s\n"},
	{"group", "groups:\n  - %s\n"},
	{"groups", "groups: %s\n"},
	{"document", "%s\n"},
	{"label name", "groups:\n  - name: a\n    labels:\n      %s: x\n"},
}

var snippets = []string{
	"", "\n", "# nothing\n", "---\n", "---\n...\n", "...\n", "--- ~\n", "{}\n", "[]\n", "groups\n", "groups: []\n", "groups:\n", "group: []\n", "groups: []\ngroup: []\n",
	"groups: []\ngroups: []\n", "{groups: []}\n", "? groups\n: []\n", "\"groups\": []\n", "Groups: []\n", "~: 1\ngroups: []\n", "[a]: 1\ngroups: []\n", "1: 2\n",
	"groups: []\n---\ngroups: []\n", "groups: []\n---\n", "groups: []\n...\n", "groups: []\n...\nx\n", "groups: []\n--- [\n", "---\ngroups: []\n--- ~\n...\n", "%YAML 1.1\n---\ngroups: []\n", "%YAML 1.2\n---\ngroups: []\n", "%YAML 2.0\n---\ngroups: []\n", "%TAG !e! tag:e,2000:\n---\ngroups: !e!x []\n", "%FOO bar\n---\ngroups: []\n",
	"\ufeffgroups: []\n", "groups: []\r\n", "groups:\n- ? name\n  : a\n  ?\n  : b\n", "groups:\n- name: !!str\n", "groups:\n- name: !!str ''\n  labels: {a: !!str , b: !!null }\n", "groups:\n- name: a\n  labels:\n    b: \"c\n d\"\n    e: 'f\ng\n\n h'\n", "groups:\n- name: a\n  labels:\n    b: c\n\td: e\n", "groups:\n- name: a\n  labels:\n    b: |\n      c\n\n    d: >+\n      e\n\n\n    f: g\n", "groups:\n- name: a\n  labels:\n    b: |+\n      c", "groups:\n- name: a\n  labels:\n    b: >\n      c\n      d", "groups:\n- name: a\n  labels:\n    b: c\n      d\n\n      e\n", "groups:\n- name: a\n  labels: {b: c\n d, e: [f]}\n", "groups:\n- name: a\n  labels: {\"b\": c, 'd': e, ? f : g, h}\n", "groups:\n- {name: a, limit: !!int \"5\"}\n", "groups:\n- {name: a, limit: !!float 5}\n", "groups:\n- {name: a, limit: ! 5}\n", "groups:\n- name: a\n  limit: 5 # x\n  interval: 1m# x\n", "groups:\r\n- name: a\r\n  rules: []\r\n", "groups: []\x00", "groups: [] # \x07\n", "groups: [] # \u0085 x\n", "groups: [] # \u2028 x\n", "groups: [] # \x7f\n", "groups: [] # \ufffe\n", "\tgroups: []\n", "groups:\t[]\n", "groups: []\t\n", "groups:\n\t- name: a\n", "groups:\n-\tname: a\n", "groups:\n- name:\ta\n",
	"groups:\n- name: a\n- name: a\n", "groups:\n- name: a\n- name: A\n", "groups:\n- {name: a}\n- {name: 'a'}\n", "groups:\n- name: a\n  name: b\n", "groups:\n- name: a\n  intervall: 1m\n", "groups:\n- name: a\n  partial_response_strategy: warn\n", "groups:\n- name: a\n  source_tenants: [b]\n", "groups:\n- name: a\n  node: b\n", "groups:\n- name: a\n  line: 5\n",
	"groups:\n- name: a\n  labels: {__name__: x}\n", "groups:\n- name: a\n  labels: {'': x}\n", "groups:\n- name: a\n  labels: {a: x, a: y}\n", "groups:\n- name: a\n  labels: {a: x, 'a': y}\n", "groups:\n- name: a\n  labels: {1: x, 0x1: y}\n", "groups:\n- name: a\n  labels: {~: x}\n", "groups:\n- name: a\n  labels: {a: ~, b: }\n", "groups:\n- name: a\n  labels: {a}\n", "groups:\n- name: a\n  labels: [a]\n", "groups:\n- name: a\n  labels: {a: [b]}\n", "groups:\n- name: a\n  labels: {a: {b: c}}\n", "groups:\n- name: a\n  labels: {? a : b}\n", "groups:\n- name: a\n  labels: {\"a\":b}\n", "groups:\n- name: a\n  labels: {a:b}\n", "groups:\n- name: a\n  labels: {a: b,}\n", "groups:\n- name: a\n  labels: {,}\n", "groups:\n- name: a\n  labels: {__name: x, 'a-b': y, 9: z}\n",
	"groups:\n- name: a\n  rules:\n  - expr: up\n", "groups:\n- name: a\n  rules:\n  - record: b\n", "groups:\n- name: a\n  rules:\n  - record: b\n    alert: c\n    expr: up\n", "groups:\n- name: a\n  rules:\n  - record: b{c=\"d\"}\n    expr: up\n", "groups:\n- name: a\n  rules:\n  - record: b-c\n    expr: up\n", "groups:\n- name: a\n  rules:\n  - record: ''\n    alert: b\n    expr: up\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: up\n    annotations: {}\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: up\n    annotations: {a: b}\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: up\n    annotations: ~\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: up\n    labels: {__name__: c}\n", "groups:\n- name: a\n  rules:\n  - alert: b\n    expr: up\n    annotations: {__name__: c, '': d}\n", "groups:\n- name: a\n  rules:\n  - alert: b\n    expr: up\n    annotations: {__name__: c}\n", "groups:\n- name: a\n  rules:\n  - alert: b\n    expr: up\n    annotations: {a: '{{ foo }}'}\n", "groups:\n- name: a\n  rules:\n  - alert: b\n    expr: up\n    labels: {a: '{{ .Bar '}\n", "groups:\n- name: a\n  rules:\n  - alert: b\n    expr: ' '\n", "groups:\n- name: a\n  rules:\n  - alert: b\n    expr: '# only a comment'\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: up\n    labels: {a: '{{ .Bar '}\n",
	"groups:\n- name: a\n  rules:\n  - record: b\n    expr: up\n  - ~\n  -\n  - record: b\n    expr: up\n", "groups:\n- ~\n-\n- name: a\n", "groups:\n- name: a\n  rules: {record: b}\n", "groups: {name: a}\n", "groups:\n  name: a\n", "groups:\n- a\n", "groups:\n- [name, a]\n",
	"groups: &g\n- *g\n", "groups: *g\n", "groups:\n- &a {name: a}\n- *a\n", "groups:\n- &a {name: a}\n- <<: *a\n  name: b\n", "groups:\n- &a {name: a, limit: 3}\n- {name: b, <<: *a}\n", "groups:\n- &a {name: a, limit: 3}\n- {<<: *a, name: b, limit: ~}\n", "groups:\n- &a {name: a}\n- {<<: [*a, *a], name: b}\n", "groups:\n- {<<: ~, name: b}\n", "groups:\n- {<<: [1], name: b}\n", "groups:\n- {<<: x, name: b}\n", "groups:\n- {<<: {limit: 3}, <<: {limit: 4}, name: b}\n", "groups:\n- {<<: {bogus: 3}, name: b}\n", "groups:\n- {'<<': {limit: 3}, name: b}\n", "groups:\n- {!!merge '<<': {limit: 3}, name: b}\n", "groups:\n- {<<: {<<: {limit: 3}, interval: 1m}, name: b}\n", "groups:\n- {<<: [{limit: 3}, {limit: 4, interval: 1m}], name: b}\n", "groups:\n- &a {<<: *a, name: b}\n", "groups:\n- &a {name: &b x}\n- name: y\n  labels: {*b : z, x: w}\n", "groups:\n- name: a\n  labels: {<<: {b: c}, b: d}\n", "groups:\n- name: a\n  labels: {<<: {b: c}, b: ~}\n", "groups:\n- name: a\n  labels: {<<: {b: ~}}\n", "groups:\n- name: a\n  labels: {1: c, <<: {1: d}}\n", "groups:\n- name: &n a\n- *n : b\n  name: c\n", "&n groups: []\n", "*n : []\n", "groups:\n- &n name: a\n  *n : b\n",
	"groups:\n- name: a\n   interval: 1m\n", "groups:\n- name: a\n interval: 1m\n", "groups:\n - name: a\n- name: b\n", "groups:\n- name: a\n  rules:\n  - record: b\n  expr: up\n", "groups:\n- name: a b: c\n", "groups:\n- name: a\n  b\n", "groups: [\n{name: a},\n{name: b}\n]\n", "groups: [\n{name: a}\n{name: b}\n]\n", "groups:\n- name: \"a\n  b\"\n", "groups:\n- name: \"a\nb\"\n", "groups: [{name: a}]]\n", "groups: }\n", "groups: - a\n", "groups: []\nx\n", "groups: [] x\n", "groups: []#x\n", "groups: [a]b\n", "groups: \"a\"b\n", "{groups: []\n}\n", "{\ngroups: []}\n", "groups: {\n}\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr:\n      up\n      +\n      up\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: |2\n        up\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: |1\n     up\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: |0\n      up\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: |\n    up\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: | # why\n      up\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: |#\n      up\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: |\n\n      up\n     # less\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: |\n        \n      up\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: |-\n      up", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: |\n      up", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: >\n      up\n        + up\n\n      + up\n\n\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: up # comment\n    # comment\n    labels: # comment\n      a: b # comment\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: up\n    labels: \n      a: b   \n   \n", "groups:\n- name: a\n  rules:\n  -\n    record: b\n    expr: up\n", "groups:\n- name: a\n  rules:\n  - record: b\n    expr: \"up\\nup\"\n", "groups:\n- name: a\n  rules:\n  - ? record\n    : b\n    expr: up\n", "groups:\n- name: a\n  rules:\n  - record : b\n    expr : up\n", "groups:\n- name: a\n  rules:\n  - record:b\n    expr: up\n",
}

func corpus() []Text {
	var out []Text
	add := func(name, text string) { out = append(out, Text{name, text}) }
	seeds, err := filepath.Glob("seeds/*.yaml")
	check(err)
	sort.Strings(seeds)
	random := rand.New(rand.NewSource(17))
	for _, path := range seeds {
		bytes, err := os.ReadFile(path)
		check(err)
		name := filepath.Base(path)
		add(name, string(bytes))
		for i := range mutationsPerSeed {
			add(fmt.Sprintf("%s, edit %d", name, i), mutate(string(bytes), random))
		}
	}
	for i, text := range snippets {
		add(fmt.Sprintf("snippet %d", i), text)
	}
	for _, place := range places {
		for _, value := range scalars {
			add(fmt.Sprintf("%s: %s", place.name, value), fmt.Sprintf(place.text, value))
		}
	}
	for _, place := range few {
		for i, value := range scalars {
			if i%3 == 0 || i < 8 {
				add(fmt.Sprintf("%s: %s", place.name, value), fmt.Sprintf(place.text, value))
			}
		}
	}
	return out
}

// mutate edits one place of a file.
func mutate(text string, random *rand.Rand) string {
	lines := strings.Split(text, "\n")
	at := random.Intn(len(lines) - 1)
	switch random.Intn(8) {
	case 0: // a line less
		return strings.Join(append(lines[:at:at], lines[at+1:]...), "\n")
	case 1: // a line twice
		return strings.Join(append(lines[:at+1:at+1], lines[at:]...), "\n")
	case 2: // another indentation
		lines[at] = strings.Repeat(" ", random.Intn(4)+1) + lines[at]
	case 3:
		lines[at] = strings.TrimPrefix(lines[at], "  ")
	case 4: // another value
		if key, _, found := strings.Cut(lines[at], ": "); found {
			lines[at] = key + ": " + scalars[random.Intn(len(scalars))]
		} else {
			lines[at] += " x"
		}
	case 5: // two lines exchanged
		other := random.Intn(len(lines) - 1)
		lines[at], lines[other] = lines[other], lines[at]
	case 6: // a character less
		runes := []rune(text)
		at := random.Intn(len(runes))
		return string(append(runes[:at:at], runes[at+1:]...))
	default: // another character
		runes := []rune(text)
		const odd = "{}[]:,#&*!|>'\"%@`- \n\tx0\\~?"
		runes[random.Intn(len(runes))] = rune(odd[random.Intn(len(odd))])
		return string(runes)
	}
	return strings.Join(lines, "\n")
}
