package main

import (
	"math/rand/v2"
	"slices"
	"strings"
)

func sortStrings(texts []string) { slices.Sort(texts) }

// random makes expressions, most of them valid, and mutations of these and of queries, most of
// them not.
func random(queries []string, seed uint64, valid, mutants int) []input {
	g := generator{rand.New(rand.NewPCG(seed, 0))}
	var inputs []input
	for range valid {
		inputs = append(inputs, input{g.mode(), g.expression()})
	}
	for range mutants {
		base := queries[g.IntN(len(queries))]
		if g.chance(3) {
			base = g.expression()
		}
		if len(base) > 400 {
			continue
		}
		for range 1 + g.IntN(3) {
			base = g.mutate(base)
		}
		inputs = append(inputs, input{g.mode(), strings.ToValidUTF8(base, "?")})
	}
	return inputs
}

type generator struct{ *rand.Rand }

func (g generator) chance(of int) bool          { return g.IntN(of) == 0 }
func (g generator) pick(texts ...string) string { return texts[g.IntN(len(texts))] }

func (g generator) mode() int {
	if g.chance(6) {
		return 1 + g.IntN(2)
	}
	return 0
}

func (g generator) expression() string {
	kind := g.pick("vector", "vector", "vector", "vector", "scalar", "matrix", "string")
	return g.value(kind, 1+g.IntN(4))
}

func (g generator) value(kind string, depth int) string {
	if g.chance(60) {
		kind = g.pick("vector", "scalar", "matrix", "string")
	}
	switch kind {
	case "scalar":
		return g.scalar(depth)
	case "matrix":
		return g.matrix(depth)
	case "string":
		return g.text()
	}
	return g.vector(depth)
}

func (g generator) name() string {
	return g.pick("up", "http_requests_total", "node:cpu:rate5m", "a", "sum", "by", "offset", "step",
		"start", "fill", "and", "node_memory_MemAvailable_bytes", "max_of", "smoothed", "é.x")
}

func (g generator) label() string {
	return g.pick("job", "instance", "le", "__name__", "on", "a", "namespace", "bool", "start",
		`"a.b"`, "'x y'", `"é"`, "group_left", "inf")
}

func (g generator) text() string {
	return g.pick(`"a"`, `'it'`, "`raw\\d`", `""`, `"\n\x41é☺"`, `"a\"b"`, `'\''`, `"\u1234\377"`)
}

func (g generator) pattern() string {
	return g.pick(`".*"`, `"a|b"`, `"node-.+"`, "`\\d+`", `"(a|b)*"`, `"^$"`, `"x{0,2}"`, `"(?i:A)?"`,
		`"[a-z]+"`, `"("`, `"\\b"`, `""`, `"api|"`, `"[^/]+/?"`)
}

func (g generator) matcher() string {
	if g.chance(12) {
		return g.text()
	}
	space := g.pick("", "", " ")
	switch g.IntN(4) {
	case 0:
		return g.label() + space + "!=" + space + g.text()
	case 1:
		return g.label() + space + g.pick("=~", "!~") + space + g.pattern()
	}
	return g.label() + space + "=" + space + g.text()
}

func (g generator) matchers() string {
	var parts []string
	for range g.IntN(4) {
		parts = append(parts, g.matcher())
	}
	text := strings.Join(parts, g.pick(",", ", "))
	if text != "" && g.chance(8) {
		text += ","
	}
	return "{" + text + "}"
}

func (g generator) selector() string {
	switch g.IntN(5) {
	case 0:
		return g.matchers()
	case 1, 2:
		return g.name()
	}
	return g.name() + g.matchers()
}

func (g generator) times() string {
	text := ""
	for range g.IntN(3) {
		switch g.IntN(5) {
		case 0, 1:
			text += " " + g.pick("offset", "OFFSET", "offset") + " " + g.offset()
		case 2:
			text += g.pick(" @ ", "@") + g.pick("start()", "end()", "1.5", "-1e3", "1603774568", "0x10", "5m")
		case 3:
			text += g.pick(" anchored", " smoothed", "")
		}
	}
	return text
}

func (g generator) offset() string {
	switch g.IntN(6) {
	case 0:
		return g.duration(2)
	case 1:
		return "(" + g.duration(2) + ")" + g.pick("", "", " * 2", "^2 - 1")
	case 2:
		return g.pick("-", "+", "--", "-+") + g.duration(1)
	}
	return g.pick("", "-") + g.unit()
}

func (g generator) unit() string {
	return g.pick("5m", "1h", "30s", "1h30m", "1d", "2w", "1y", "500ms", "90", "1.5", "0.0001", "5m30s")
}

func (g generator) duration(depth int) string {
	if depth == 0 || g.chance(2) {
		return g.unit()
	}
	depth--
	switch g.IntN(8) {
	case 0:
		return "step()"
	case 1:
		return "range ()"
	case 2:
		return g.pick("max_of", "min_of") + "(" + g.duration(depth) + "," + g.duration(depth) + ")"
	case 3:
		return "(" + g.duration(depth) + ")"
	case 4:
		return g.pick("-", "+") + g.duration(depth)
	}
	space := g.pick("", " ")
	return g.duration(depth) + space + g.pick("+", "-", "*", "/", "%", "^") + space + g.duration(depth)
}

func (g generator) brackets() string {
	return "[" + g.pick(g.unit(), g.duration(2)) + "]"
}

func (g generator) matrix(depth int) string {
	if depth == 0 || g.chance(2) {
		return g.selector() + g.brackets() + g.times()
	}
	step := g.pick("", "", g.unit(), g.duration(1))
	inner := g.value("vector", depth-1)
	if g.chance(3) {
		inner = "(" + inner + ")"
	}
	return inner + "[" + g.duration(1) + ":" + step + "]" + g.times()
}

func (g generator) scalar(depth int) string {
	if depth == 0 || g.chance(2) {
		return g.pick("1", "0.5", "-3", "1e3", "Inf", "-inf", "NaN", "0x1F", "1_000", "5m", "007", ".5",
			"+2", "1e-7", "123456789.125")
	}
	depth--
	switch g.IntN(6) {
	case 0:
		return "scalar(" + g.value("vector", depth) + ")"
	case 1:
		return g.pick("time()", "pi()", "step()", "range()", "start()", "end()")
	case 2:
		return "(" + g.value("scalar", depth) + ")"
	case 3:
		return g.pick("-", "+") + g.value("scalar", depth)
	case 4:
		return g.pick("max_of", "min_of") + "(" + g.value("scalar", depth) + "," + g.value("scalar", depth) + ")"
	}
	return g.value("scalar", depth) + g.pick(" + ", "-", " * ", " / ", "^", " % ", " atan2 ", " == bool ", "<bool ") +
		g.value("scalar", depth)
}

func (g generator) vector(depth int) string {
	if depth == 0 || g.chance(6) {
		return g.selector() + g.times()
	}
	depth--
	switch g.IntN(9) {
	case 0, 1:
		return g.aggregation(depth)
	case 2, 3:
		return g.call(depth)
	case 4:
		return "(" + g.value("vector", depth) + ")"
	case 5:
		return g.pick("-", "+") + g.value("vector", depth)
	}
	return g.binary(depth)
}

func (g generator) labels() string {
	var parts []string
	for range g.IntN(4) {
		parts = append(parts, g.label())
	}
	return g.pick("(", " (") + strings.Join(parts, g.pick(",", ", ")) + ")"
}

func (g generator) aggregation(depth int) string {
	op := g.pick("sum", "avg", "count", "MIN", "max", "group", "stddev", "topk", "bottomk", "quantile",
		"count_values", "limitk", "limit_ratio")
	arguments := g.value("vector", depth)
	switch op {
	case "topk", "bottomk", "quantile", "limitk", "limit_ratio":
		arguments = g.value("scalar", depth) + ", " + arguments
	case "count_values":
		arguments = g.value("string", 0) + "," + arguments
	}
	body := "(" + arguments + ")"
	switch g.IntN(3) {
	case 0:
		return op + " " + g.pick("by", "without", "BY") + g.labels() + body
	case 1:
		return op + body + " " + g.pick("by", "without") + g.labels()
	}
	return op + g.pick("", " ") + body
}

func (g generator) call(depth int) string {
	vector, matrix, scalar := g.value("vector", depth), g.value("matrix", depth), g.value("scalar", depth)
	switch g.IntN(12) {
	case 0:
		return "histogram_quantile(" + scalar + ", " + vector + ")"
	case 1:
		return "label_replace(" + vector + `, "a", "$1", "b", "(.*)")`
	case 2:
		return "label_join(" + vector + `, "a", "-"` + strings.Repeat(`, "b"`, g.IntN(3)) + ")"
	case 3:
		return "info(" + vector + g.pick("", ", {}", `, {a="b"}`, `,{__name__="x_info",k=~".*"}`, ", "+vector) + ")"
	case 4:
		return g.pick("round", "clamp_min") + "(" + vector + ", " + scalar + ")"
	case 5:
		return g.pick("hour", "month", "abs", "absent", "sort_desc") + "(" + g.pick(vector, vector, "") + ")"
	case 6:
		return g.pick("quantile_over_time(", "predict_linear(") + g.pick(scalar+","+matrix, matrix+","+scalar) + ")"
	case 7:
		return "vector(" + scalar + ")"
	case 8:
		return "clamp(" + vector + "," + scalar + "," + scalar + ")"
	}
	return g.pick("rate", "increase", "sum_over_time", "mad_over_time", "deriv", "absent_over_time") + "(" + matrix + ")"
}

func (g generator) binary(depth int) string {
	op := g.pick("+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<=", ">/", "</", "and", "or", "unless")
	modifiers := ""
	if g.chance(8) {
		modifiers += " bool"
	}
	if g.chance(4) {
		modifiers += g.pick(" on", " ignoring") + g.labels()
		if g.chance(2) {
			modifiers += g.pick(" group_left", " group_right") + g.pick("", g.labels())
		}
	}
	if g.chance(10) {
		value := g.pick("(0)", " (-1.5)", "(1e7)", "(5m)", "(NaN)", "(0.00001)")
		modifiers += g.pick(" fill", " fill_left", " fill_right", " fill_left(2) fill_right") + value
	}
	left, right := g.value(g.pick("vector", "vector", "scalar"), depth), g.value("vector", depth)
	return left + " " + op + modifiers + " " + right
}

// Pieces that mutations put into a query.
var pieces = []string{
	"(", ")", "[", "]", "{", "}", ",", ":", "=", "!", "~", "<", ">", "/", "*", "+", "-", "^", "%", "@",
	"\"", "'", "`", "\\", "#", "\n", " ", "\t", ".", "_", "0", "1", "5m", "1e", "0x", "a", "e", "é", "�", "\u00a0",
	" by ", " offset ", " on ", " bool ", " and ", " group_left ", " fill(1) ", " smoothed ", " @ start() ",
	"step()", "sum(", "rate(", "[5m]", "[1h:]", "{a=\"b\"}", "NaN", "Inf", "==", "=~", "!~", "!=", "x",
	"max_of(1,2)", "ms", "1y1w", ";", "$", "&", "|", "?", "\x00", "\r\n", "''", "::", "-1", "1_0", "__",
}

func (g generator) mutate(text string) string {
	// Between characters.
	cuts := []int{}
	for at := range text {
		cuts = append(cuts, at)
	}
	cuts = append(cuts, len(text))
	at := func() int { return cuts[g.IntN(len(cuts))] }
	first, second := at(), at()
	if first > second {
		first, second = second, first
	}
	if second-first > 12 {
		second = first
	}
	switch g.IntN(6) {
	case 0:
		return text[:first] + text[second:]
	case 1:
		return text[:first] + text[first:second] + text[first:second] + text[second:]
	case 2:
		return text[:second]
	}
	return text[:first] + pieces[g.IntN(len(pieces))] + text[first:]
}
