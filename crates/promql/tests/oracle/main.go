// Writes what Prometheus' own parser says about a corpus, for ../golden.rs to compare.
//
//	cd crates/promql/tests/oracle && go mod tidy && go run . ../golden
//
// The corpus is the lines of queries.txt, and expressions and mutations that are generated from a
// fixed seed. With "-random SEED COUNT", so many of these alone go to the folder, for long runs:
//
//	go run . -random 7 200000 /tmp/random && PROMQL_GOLDEN=/tmp/random cargo test -p metrifold-promql
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// How often generated expressions and mutations go into the golden file.
const (
	generated = 2500
	mutated   = 7000
)

// The options that a line of a golden file can have been parsed with, by its first field.
var parsers = []parser.Parser{
	parser.NewParser(parser.Options{EnableExperimentalFunctions: true, EnableBinopFillModifiers: true}),
	parser.NewParser(parser.Options{}),
	parser.NewParser(parser.Options{
		EnableExperimentalFunctions: true,
		EnableBinopFillModifiers:    true,
		EnableUnquotedUTF8Names:     true,
	}),
}

func main() {
	log.SetFlags(0)
	args := os.Args[1:]
	if len(args) == 4 && args[0] == "-random" {
		seed, err := strconv.ParseUint(args[1], 10, 64)
		check(err)
		count, err := strconv.Atoi(args[2])
		check(err)
		write(args[3], random(lines("queries.txt"), seed, count/2, count/2))
		return
	}
	if len(args) != 1 {
		log.Fatal("usage: go run . [-random SEED COUNT] FOLDER")
	}
	queries := lines("queries.txt")
	cases := make([]input, 0, len(queries))
	for _, query := range queries {
		for mode := range parsers {
			cases = append(cases, input{mode, query})
		}
	}
	write(args[0], append(cases, random(queries, 1, generated, mutated)...))
	writeSelectors(args[0], lines("selectors.txt"))
	writeSeries(args[0], lines("series.txt"))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// lines gives the lines of a file that are not empty. A line in double quotes with a space before
// it is a Go string, for what does not fit a line.
func lines(name string) []string {
	content, err := os.ReadFile(name)
	check(err)
	var result []string
	for line := range strings.SplitSeq(string(content), "\n") {
		if strings.HasPrefix(line, ` "`) {
			text, err := strconv.Unquote(line[1:])
			check(err)
			line = text
		} else if line == "" {
			continue
		}
		result = append(result, line)
	}
	return result
}

type input struct {
	mode  int
	query string
}

// output writes lines of JSON to a file.
type output struct {
	file   *os.File
	writer *bufio.Writer
}

func create(folder, name string) output {
	check(os.MkdirAll(folder, 0o777))
	file, err := os.Create(filepath.Join(folder, name))
	check(err)
	return output{file, bufio.NewWriter(file)}
}

func (o output) line(fields ...any) {
	encoder := json.NewEncoder(o.writer)
	encoder.SetEscapeHTML(false)
	check(encoder.Encode(fields))
}

func (o output) close() {
	check(o.writer.Flush())
	check(o.file.Close())
}

// write writes, per input: its options, itself, how it is printed if that differs, and how it is
// formatted if that differs from how it is printed. Of what is refused, null and the message stand
// in place of the last two. All regular expressions go to a file of their own.
func write(folder string, inputs []input) {
	out := create(folder, "expressions.jsonl")
	patterns := map[string]bool{}
	seen := map[input]bool{}
	for _, in := range inputs {
		// What a mode says is worth a line only if the first says something else.
		if seen[in] {
			continue
		}
		seen[in] = true
		fields := verdict(in)
		if in.mode > 0 && fmt.Sprint(fields...) == fmt.Sprint(verdict(input{0, in.query})...) {
			continue
		}
		out.line(append([]any{in.mode, in.query}, fields...)...)
		collect(in.query, patterns)
	}
	out.close()
	writePatterns(folder, patterns)
}

func verdict(in input) []any {
	expr, err := parsers[in.mode].ParseExpr(in.query)
	if err != nil {
		return []any{nil, err.Error()}
	}
	printed := expr.String()
	pretty := parser.Prettify(expr)
	switch {
	case pretty != printed:
		return []any{printed, pretty}
	case printed != in.query:
		return []any{printed}
	}
	return nil
}

// collect remembers every string that stands where a regular expression does.
func collect(query string, patterns map[string]bool) {
	for i := 0; i+2 < len(query); i++ {
		if query[i:i+2] != "=~" && query[i:i+2] != "!~" {
			continue
		}
		rest := strings.TrimLeft(query[i+2:], " \t\r\n")
		for end := 2; end <= len(rest); end++ {
			if !strings.ContainsRune("\"'`", rune(rest[0])) || rest[end-1] != rest[0] {
				continue
			}
			expr, err := parsers[0].ParseExpr("{x=" + rest[:end] + ",y=\"z\"}")
			if err != nil {
				continue
			}
			patterns[expr.(*parser.VectorSelector).LabelMatchers[0].Value] = true
			break
		}
	}
}

// writePatterns writes, per regular expression: itself, and whether it matches the empty string,
// or what is wrong with it.
func writePatterns(folder string, patterns map[string]bool) {
	out := create(folder, "patterns.jsonl")
	defer out.close()
	sorted := make([]string, 0, len(patterns))
	for pattern := range patterns {
		sorted = append(sorted, pattern)
	}
	sortStrings(sorted)
	for _, pattern := range sorted {
		matcher, err := labels.NewMatcher(labels.MatchRegexp, "x", pattern)
		if err != nil {
			out.line(pattern, err.Error())
			continue
		}
		out.line(pattern, matcher.Matches(""))
	}
}

// writeSelectors writes, per input: itself, and its matchers or what is wrong.
func writeSelectors(folder string, inputs []string) {
	out := create(folder, "selectors.jsonl")
	defer out.close()
	for _, in := range inputs {
		matchers, err := parsers[0].ParseMetricSelector(in)
		if err != nil {
			out.line(in, nil, err.Error())
			continue
		}
		triples := [][3]string{}
		for _, matcher := range matchers {
			triples = append(triples, [3]string{matcher.Name, matcher.Type.String(), matcher.Value})
		}
		out.line(in, triples)
	}
}

// writeSeries writes, per input: itself, its labels and values, or what is wrong.
func writeSeries(folder string, inputs []string) {
	out := create(folder, "series.jsonl")
	defer out.close()
	for _, in := range inputs {
		metric, values, err := parsers[0].ParseSeriesDesc(in)
		if err != nil {
			out.line(in, nil, err.Error())
			continue
		}
		pairs := [][2]string{}
		metric.Range(func(l labels.Label) { pairs = append(pairs, [2]string{l.Name, l.Value}) })
		texts := []string{}
		for _, value := range values {
			texts = append(texts, describe(value))
		}
		out.line(in, pairs, texts)
	}
}

// describe writes a value of a series so that nothing of it is lost.
func describe(value parser.SequenceValue) string {
	h := value.Histogram
	if h == nil {
		if !value.Omitted && value.Value != value.Value {
			return "stale"
		}
		return value.String()
	}
	offset := func(negative bool) int32 {
		spans := h.PositiveSpans
		if negative {
			spans = h.NegativeSpans
		}
		if len(spans) == 0 {
			return 0
		}
		return spans[0].Offset
	}
	return fmt.Sprintf("schema:%d sum:%v count:%v z:%v zw:%v custom:%v pos:%d%v neg:%d%v hint:%d,%t",
		h.Schema, h.Sum, h.Count, h.ZeroCount, h.ZeroThreshold, h.CustomValues,
		offset(false), h.PositiveBuckets, offset(true), h.NegativeBuckets,
		h.CounterResetHint, value.CounterResetHintSet)
}
