package main

// texts are read as JSON and as YAML, of which the first is for the most part a special case.
var texts = []string{
	``, ` `, `null`, `[]`, `{}`, `""`, `1`, `[null]`, `[[]]`, `["a"]`, `[1]`, `[{}]`, `[{},{}]`, `[{}`, `[{}]x`, `[{}] []`, `[{},]`,
	`[{"targets":null}]`, `[{"targets":[]}]`, `[{"targets":["a:1"]}]`, `[{"targets":["a:1","a:1"]}]`, `[{"targets":["a:1","b:2"],"labels":{"x":"y"}}]`,
	`[{"targets":"a:1"}]`, `[{"targets":{"a":1}}]`, `[{"targets":[1]}]`, `[{"targets":[1.50]}]`, `[{"targets":[true]}]`, `[{"targets":[null]}]`, `[{"targets":[null,"a"]}]`, `[{"targets":[""]}]`, `[{"targets":[" a "]}]`, `[{"targets":[["a"]]}]`, `[{"targets":["a","b"`,
	`[{"targets":["a"],"labels":null}]`, `[{"targets":["a"],"labels":{}}]`, `[{"targets":["a"],"labels":[]}]`, `[{"targets":["a"],"labels":"x"}]`, `[{"targets":["a"],"labels":{"x":null}}]`, `[{"targets":["a"],"labels":{"x":1}}]`, `[{"targets":["a"],"labels":{"x":true}}]`, `[{"targets":["a"],"labels":{"x":{}}}]`, `[{"targets":["a"],"labels":{"x":""}}]`,
	`[{"targets":["a"],"labels":{"":"x"}}]`, `[{"targets":["a"],"labels":{"a b":"x"}}]`, `[{"targets":["a"],"labels":{"a.b":"x"}}]`, `[{"targets":["a"],"labels":{"1":"x"}}]`, `[{"targets":["a"],"labels":{"ä":"ü"}}]`, `[{"targets":["a"],"labels":{"x":"1","x":"2"}}]`, `[{"targets":["a"],"labels":{"x":"1","X":"2"}}]`,
	`[{"targets":["a"],"labels":{"__address__":"b"}}]`, `[{"targets":[""],"labels":{"__address__":"b"}}]`, `[{"targets":["a"],"labels":{"__meta_filepath":"b"}}]`, `[{"targets":["a"],"labels":{"__meta_x":"b","__name__":"c"}}]`,
	`[{"Targets":["a"]}]`, `[{"TARGETS":["a"],"LABELS":{"x":"y"}}]`, `[{"targetſ":["a"]}]`, `[{"target":["a"]}]`, `[{"targets":["a"],"extra":1}]`, `[{"targets":["a"],"":1}]`, `[{"targets":["a"],"labels":{"x":"y"},"comment":"z"}]`,
	`[{"targets":["a"],"targets":["b"]}]`, `[{"targets":["a"],"Targets":["b"]}]`, `[{"targets":["a","c"],"targets":["b"]}]`, `[{"targets":["a"],"labels":{"x":"1"},"labels":{"y":"2"}}]`, `[{"targets":["a"],"targets":null}]`,
	`[{"targets":["\u0061\n\t\"\\\/"]}]`, `[{"targets":["\ud83e\udd80"]}]`, `[{"targets":["\ud83e"]}]`, `[{"targets":["a\ud83eb"]}]`, `[{"targets":["\x41"]}]`, `[{'targets':['a']}]`, `[{targets:["a"]}]`, "[{\"targets\":[\"a\xffb\"]}]", "[{\"targets\":[\"a\tb\"]}]", "[{\"targets\":[\"a\nb\"]}]", "[{\"targets\":[\"a\x00b\"]}]", "\ufeff[{\"targets\":[\"a\"]}]",
	`/* x */[]`, `// x` + "\n[]", `# x` + "\n[]", `[{"targets":["a"]}]` + "\n\n", "\n\n" + `[{"targets":["a"]}]`, `[ { "targets" : [ "a" ] , "labels" : { "x" : "y" } } ]`, `[{"targets":["a"]},null]`, `[{"targets":["a"]},{"targets":["b"],"labels":{"x":"y"}},{"targets":["a"],"labels":{"x":"y"}}]`,
	`[{"targets":["[::1]:80","http://a/b","a b",":","@"]}]`,
}

// yamls are read as YAML.
var yamls = []string{
	"# nothing\n", "---\n", "---\n...\n", "~\n", "- targets: [a]\n", "- targets:\n  - a:1\n  - 'b:2'\n  - \"c:3\"\n  labels:\n    x: y\n", "- targets:\n  - a\n- targets:\n  - b\n", "targets: [a]\n",
	"- targets: a\n", "- targets: [9090]\n", "- targets: [0x10]\n", "- targets: [1e3]\n", "- targets: [1.50]\n", "- targets: [yes, No, on, true, ~, null]\n", "- targets: [2024-01-01]\n", "- targets: [1:30]\n", "- targets: ['']\n", "- targets: [, a]\n", "- targets: [a,]\n",
	"- targets: [a]\n  labels: {x: 1, y: true, z: ~, w: 1.50, v: 0o17, u: 017, t: .inf, s: 2024-01-01, r: ''}\n", "- targets: [a]\n  labels: {1: x}\n", "- targets: [a]\n  labels: {true: x}\n", "- targets: [a]\n  labels: {yes: x}\n", "- targets: [a]\n  labels: {~: x}\n", "- targets: [a]\n  labels: {'': x}\n", "- targets: [a]\n  labels: {a b: x, a.b: y, ä: z}\n", "- targets: [a]\n  labels:\n", "- targets:\n  labels:\n", "-\n", "- {}\n", "- ~\n",
	"- targets: [a]\n  targets: [b]\n", "- targets: [a]\n  labels: {x: 1, x: 2}\n", "- targets: [a]\n  label: {x: 1}\n", "- Targets: [a]\n", "- targets: [a]\n  source: b\n",
	"- targets: &t [a]\n- targets: *t\n", "- &g\n  targets: [a]\n- *g\n", "- targets: [a]\n  labels: &l {x: y}\n- targets: [b]\n  labels: {<<: *l, z: w}\n", "- targets: [a]\n  labels: &l {x: y}\n- targets: [b]\n  labels: {<<: *l, x: w}\n", "- &g {targets: [a]}\n- <<: *g\n  labels: {x: y}\n", "- targets: *missing\n",
	"- targets: [!!str 1]\n", "- targets: [!!int 1]\n", "- targets: [!!int x]\n", "- targets: [!!binary aGVsbG8=]\n", "- targets: [!!null x]\n", "- targets: [!x a]\n",
	"- targets: [a]\n---\n- targets: [b]\n", "- targets: [a]\n...\n- targets: [b]\n", "- targets: [a]\n...\n", "%YAML 1.1\n---\n- targets: [a]\n", "- targets: [a]\r\n  labels:\r\n    x: y\r\n", "-\ttargets: [a]\n", "- targets:\n\t- a\n", "- targets: [a\n", "- targets: [\"a]\n", "- targets: ['it''s']\n", "- targets: [\"\\x41\\u00e9\\n\"]\n", "- targets: [\"\\q\"]\n", "- targets:\n  - |\n    a\n    b\n  - >-\n    a\n    b\n", "- targets: [a b, \"c\" ]\n  labels: {x: y # z\n  }\n", "- targets: [a] # x\n", "- targets: [a#b]\n", "? - a\n: b\n", "- ? targets\n  : [a]\n", "- targets: {a: b}\n", "- targets: [[a]]\n", "- targets: [{a: b}]\n", "- targets: [a]\n  labels: {x: [y]}\n", "- targets: [a]\n  labels: {x: {y: z}}\n", "- targets: [a]\n  labels: [x]\n", "- targets: [a]\n  labels: x\n", "a\n", "1\n", "\xff\n", "- targets: [\"a\xffb\"]\n", "- targets: [a\x00]\n", "- targets: [a]\n  labels: {x: \"\"}\n", "- targets: [a]\n  labels: {\"x\": 'y', 'z': \"w\"}\n", "- targets: [a]\n  labels: {x: =, y: <<}\n", "- targets: [a]\n  labels: {=: x}\n",
}

func cases() []Case {
	var all []Case
	for _, text := range texts {
		all = append(all, Case{Text: text}, Case{Text: text, YAML: true})
	}
	for _, text := range yamls {
		all = append(all, Case{Text: text, YAML: true})
	}
	return all
}
