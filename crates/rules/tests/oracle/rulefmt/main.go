// Command rulefmt writes down what Prometheus' own reader of rule files thinks of a corpus.
//
//	go run . write golden.json     verdicts on seeds/, the snippets of cases.go and edits of both
//	go run . templates FILE        verdicts on the templates of templates.go and edits of them
//	go run . accept written.json   whether files that metrifold-rules wrote read back the same
//	go run . explain golden.json   upstream's reasons, for whoever compares two verdicts
//
// The corpus is generated from seeds/*.yaml and cases.go, in an order that a fixed seed decides.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"sort"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// Case is one file of the corpus with the verdict on it.
type Case struct {
	Name string `json:"name"`
	Text string `json:"text"`
	OK   bool   `json:"ok"`
	// Warned says that upstream ignored what follows the first document.
	Warned bool    `json:"warned,omitempty"`
	Groups []Group `json:"groups,omitempty"`
}

// Group is what upstream read, with durations in milliseconds.
type Group struct {
	Name        string            `json:"name"`
	Interval    int64             `json:"interval"`
	QueryOffset *int64            `json:"query_offset"`
	Limit       int64             `json:"limit"`
	Labels      map[string]string `json:"labels"`
	Rules       []Rule            `json:"rules"`
}

// Rule is what upstream read of one rule.
type Rule struct {
	Record        string            `json:"record"`
	Alert         string            `json:"alert"`
	Expr          string            `json:"expr"`
	For           int64             `json:"for"`
	KeepFiringFor int64             `json:"keep_firing_for"`
	Labels        map[string]string `json:"labels"`
	Annotations   map[string]string `json:"annotations"`
}

// Golden is the whole file.
type Golden struct {
	Prometheus string   `json:"prometheus"`
	BadExprs   []string `json:"bad_exprs"`
	Cases      []Case   `json:"cases"`
}

// recorder notes the expressions that do not parse.
type recorder struct {
	parser.Parser
	bad map[string]bool
}

func (r recorder) ParseExpr(input string) (parser.Expr, error) {
	expr, err := r.Parser.ParseExpr(input)
	if err != nil {
		r.bad[input] = true
	}
	return expr, err
}

// witness is a log handler that only remembers that something was logged.
type witness struct{ seen *bool }

func (w witness) Write(p []byte) (int, error) { *w.seen = true; return len(p), nil }

func read(text string, p parser.Parser) (Case, []error) {
	var warned bool
	logger := slog.New(slog.NewTextHandler(io.Writer(witness{&warned}), nil))
	groups, errs := rulefmt.Parse([]byte(text), false, model.UTF8Validation, p, logger)
	c := Case{Text: text, OK: len(errs) == 0, Warned: warned}
	if groups != nil && c.OK {
		c.Groups = flatten(groups)
	}
	return c, errs
}

func millis(d model.Duration) int64 { return int64(d) / 1_000_000 }

func filled(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func flatten(groups *rulefmt.RuleGroups) []Group {
	out := []Group{}
	for _, g := range groups.Groups {
		group := Group{
			Name: g.Name, Interval: millis(g.Interval), Limit: int64(g.Limit),
			Labels: filled(g.Labels), Rules: []Rule{},
		}
		if g.QueryOffset != nil {
			offset := millis(*g.QueryOffset)
			group.QueryOffset = &offset
		}
		for _, r := range g.Rules {
			group.Rules = append(group.Rules, Rule{
				Record: r.Record, Alert: r.Alert, Expr: r.Expr, For: millis(r.For),
				KeepFiringFor: millis(r.KeepFiringFor), Labels: filled(r.Labels),
				Annotations: filled(r.Annotations),
			})
		}
		out = append(out, group)
	}
	return out
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func load(path string, into any) {
	text, err := os.ReadFile(path)
	check(err)
	check(json.Unmarshal(text, into))
}

func save(path string, value any) {
	file, err := os.Create(path)
	check(err)
	encoder := json.NewEncoder(file)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	check(encoder.Encode(value))
	check(file.Close())
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: go run . write|templates|accept|explain FILE")
		os.Exit(2)
	}
	p := recorder{parser.NewParser(parser.Options{}), map[string]bool{}}
	switch os.Args[1] {
	case "write":
		golden := Golden{Prometheus: "v0.316.0"}
		accepted := 0
		for _, c := range corpus() {
			if !utf8.ValidString(c.Text) {
				continue // JSON would not carry it
			}
			verdict, _ := read(c.Text, p)
			verdict.Name = c.Name
			if verdict.OK {
				accepted++
			}
			golden.Cases = append(golden.Cases, verdict)
		}
		for expr := range p.bad {
			golden.BadExprs = append(golden.BadExprs, expr)
		}
		sort.Strings(golden.BadExprs)
		save(os.Args[2], golden)
		fmt.Printf("%d files, %d accepted\n", len(golden.Cases), accepted)
	case "templates":
		var verdicts []Template
		for _, text := range templateCorpus() {
			verdicts = append(verdicts, judge(text))
		}
		save(os.Args[2], verdicts)
		fmt.Printf("%d templates\n", len(verdicts))
	case "accept":
		var cases []Case
		load(os.Args[2], &cases)
		failed := 0
		for _, c := range cases {
			got, errs := read(c.Text, p)
			if !got.OK || got.Warned || !same(got.Groups, c.Groups) {
				failed++
				fmt.Printf("%s: %v\n%s\n", c.Name, errs, c.Text)
			}
		}
		fmt.Printf("%d written files read back, %d differ\n", len(cases), failed)
		if failed > 0 {
			os.Exit(1)
		}
	case "explain":
		var golden Golden
		load(os.Args[2], &golden)
		for _, c := range golden.Cases {
			_, errs := read(c.Text, p)
			fmt.Printf("%s: %v\n", c.Name, errs)
		}
	}
}

func same(a, b []Group) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}
