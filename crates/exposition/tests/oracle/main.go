// Command textparse writes down what Prometheus reads of pages of metrics.
//
//	go run . > golden.json
//
// Pages are those of cases.go, mutations of them, and what real exporters of Debian 12 serve
// (pages/). What is read of a page is written in a form that the test writes as well, and of a long
// one there is only the digest.
package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

// Case is a page with what is read of it.
type Case struct {
	// Page is the text, Base64 the bytes of what is none, File the name of one in pages/.
	Page    string `json:"page,omitempty"`
	Base64  string `json:"base64,omitempty"`
	File    string `json:"file,omitempty"`
	Format  string `json:"format"`
	Native  bool   `json:"native,omitempty"`
	Classic bool   `json:"classic,omitempty"`
	// Custom converts classic histograms to native ones, Starts reads start timestamps.
	Custom bool   `json:"custom,omitempty"`
	Starts bool   `json:"starts,omitempty"`
	OK     bool   `json:"ok"`
	Lines  int    `json:"lines"`
	Digest string `json:"digest"`
}

var contentTypes = map[string]string{
	"text":        "text/plain",
	"openmetrics": "application/openmetrics-text;version=1.0.0",
	"protobuf":    "application/vnd.google.protobuf",
}

func bits(value float64) string { return fmt.Sprintf("%016x", math.Float64bits(value)) }

func line(lset labels.Labels, rest string) string {
	var b strings.Builder
	lset.Range(func(l labels.Label) {
		if l.Value != "" {
			fmt.Fprintf(&b, "%s\x1f%s\x1f", l.Name, l.Value)
		}
	})
	return b.String() + rest
}

func buckets(it interface {
	Next() bool
	At() histogram.Bucket[float64]
}) string {
	var b strings.Builder
	for it.Next() {
		if at := it.At(); at.Count != 0 {
			fmt.Fprintf(&b, " %d:%s", at.Index, bits(at.Count))
		}
	}
	return b.String()
}

func shown(h *histogram.FloatHistogram, float bool) string {
	custom := ""
	for _, bound := range h.CustomValues {
		custom += " " + bits(bound)
	}
	return fmt.Sprintf("histogram %v %d %s %s %s %s gauge=%v -%s +%s", float, h.Schema, bits(h.Count), bits(h.Sum),
		bits(h.ZeroThreshold), bits(h.ZeroCount), h.CounterResetHint == histogram.GaugeType,
		buckets(h.NegativeBucketIterator()), buckets(h.PositiveBucketIterator())) + custom
}

var unescape = strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\n`, "\n")

func read(page []byte, c *Case) ([]string, error) {
	p, err := textparse.New(append([]byte{}, page...), contentTypes[c.Format], labels.NewSymbolTable(), textparse.ParserOptions{
		IgnoreNativeHistograms:                  !c.Native,
		KeepClassicOnClassicAndNativeHistograms: c.Classic,
		ConvertClassicHistogramsToNHCB:          c.Custom,
		OpenMetricsSkipSTSeries:                 c.Starts,
	})
	if err != nil {
		return nil, err
	}
	var lines []string
	family := struct{ name, kind, help, unit string }{}
	finish := func() {
		if family.name != "" {
			lines = append(lines, fmt.Sprintf("family %s %s %s %s", family.name, family.kind, family.help, family.unit))
		}
		family.name, family.kind, family.help, family.unit = "", "unknown", "", ""
	}
	finish()
	turn := func(name []byte) {
		if string(name) != family.name {
			finish()
			family.name = string(name)
		}
	}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			finish()
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		switch entry {
		case textparse.EntryHelp:
			name, text := p.Help()
			turn(name)
			family.help = string(text)
		case textparse.EntryType:
			name, kind := p.Type()
			turn(name)
			family.kind = string(kind)
		case textparse.EntryUnit:
			name, unit := p.Unit()
			turn(name)
			family.unit = string(unit)
		case textparse.EntrySeries, textparse.EntryHistogram:
			var rest string
			var ts *int64
			if entry == textparse.EntrySeries {
				_, at, value := p.Series()
				ts = at
				if math.IsNaN(value) && c.Format == "protobuf" {
					value = math.NaN()
				}
				rest = "value " + bits(value)
			} else {
				_, at, h, fh := p.Histogram()
				ts = at
				if h != nil {
					if err := h.Validate(); err != nil {
						return nil, err
					}
					rest = shown(h.ToFloat(nil), false)
				} else {
					if err := fh.Validate(); err != nil {
						return nil, err
					}
					rest = shown(fh, true)
				}
			}
			var lset labels.Labels
			p.Labels(&lset)
			// What the scrape asks of a series before it is stored.
			lset = labels.NewBuilder(lset).Labels()
			start := int64(0)
			if c.Starts {
				start = p.StartTimestamp()
			}
			if !lset.Has(model.MetricNameLabel) || !lset.IsValid(model.UTF8Validation) {
				return nil, errors.New("invalid labels")
			}
			if _, twice := lset.HasDuplicateLabelNames(); twice {
				return nil, errors.New("label twice")
			}
			if ts != nil {
				rest += fmt.Sprintf(" at %d", *ts)
			}
			if start != 0 {
				rest += fmt.Sprintf(" since %d", start)
			}
			var e exemplar.Exemplar
			for p.Exemplar(&e) {
				if entry == textparse.EntryHistogram && !e.HasTs {
					e = exemplar.Exemplar{}
					continue
				}
				at := ""
				if e.HasTs {
					at = fmt.Sprintf(" at %d", e.Ts)
				}
				// Not so there, but so the specification.
				var own []labels.Label
				e.Labels.Range(func(l labels.Label) {
					name, value := l.Name, l.Value
					if c.Format == "openmetrics" {
						name, value = unescape.Replace(name), unescape.Replace(value)
					}
					own = append(own, labels.Label{Name: name, Value: value})
				})
				sort.Slice(own, func(i, j int) bool { return own[i].Name < own[j].Name })
				rest += " exemplar "
				for _, l := range own {
					rest += fmt.Sprintf("%s\x1f%s\x1f", l.Name, l.Value)
				}
				rest += bits(e.Value) + at
				e = exemplar.Exemplar{}
			}
			lines = append(lines, line(lset, rest))
		}
	}
}

func judged(page []byte, c Case) Case {
	lines, err := read(page, &c)
	c.OK = err == nil
	if c.OK {
		c.Lines = len(lines)
		sum := fnv.New64a()
		io.WriteString(sum, strings.Join(lines, "\n"))
		c.Digest = fmt.Sprintf("%016x", sum.Sum64())
	}
	if c.File == "" {
		if utf8.Valid(page) {
			c.Page = string(page)
		} else {
			c.Base64 = base64.StdEncoding.EncodeToString(page)
		}
	}
	return c
}

const pieces = " \t\n\"\\{},=#:1e+-._aZ%\xc3\xa9\xff"

func mutate(page []byte, random *rand.Rand) []byte {
	out := append([]byte{}, page...)
	for range 1 + random.Intn(3) {
		if len(out) == 0 {
			return out
		}
		at := random.Intn(len(out))
		piece := pieces[random.Intn(len(pieces))]
		switch random.Intn(5) {
		case 0:
			out[at] = piece
		case 1:
			out = append(out[:at], out[at+1:]...)
		case 2:
			out = append(out[:at], append([]byte{piece}, out[at:]...)...)
		case 3:
			end := min(len(out), at+1+random.Intn(8))
			out = append(out[:end], append(append([]byte{}, out[at:end]...), out[end:]...)...)
		case 4:
			if random.Intn(4) == 0 {
				out = out[:at]
			}
		}
	}
	return out
}

func main() {
	var cases []Case
	random := rand.New(rand.NewSource(1))
	for _, format := range []string{"text", "openmetrics"} {
		pages := text
		if format == "openmetrics" {
			pages = openmetrics
		}
		for _, page := range pages {
			cases = append(cases, judged([]byte(page), Case{Format: format}))
			for range min(40, 4*len(page)) {
				cases = append(cases, judged(mutate([]byte(page), random), Case{Format: format}))
			}
		}
	}
	for _, page := range protobuf() {
		for _, native := range []bool{false, true} {
			for _, classic := range []bool{false, true} {
				c := Case{Format: "protobuf", Native: native, Classic: classic}
				cases = append(cases, judged(page, c))
			}
		}
	}
	files, err := filepath.Glob("pages/*")
	if err != nil {
		panic(err)
	}
	for _, file := range files {
		page, err := os.ReadFile(file)
		if err != nil {
			panic(err)
		}
		format := "text"
		if strings.HasSuffix(file, ".om.txt") {
			format = "openmetrics"
		}
		cases = append(cases, judged(page, Case{File: filepath.Base(file), Format: format}))
	}
	for _, page := range classic {
		for _, keep := range []bool{false, true} {
			cases = append(cases, judged([]byte(page), Case{Format: "text", Custom: true, Classic: keep}))
			c := Case{Format: "openmetrics", Custom: true, Classic: keep, Starts: keep}
			cases = append(cases, judged([]byte(page+"# EOF\n"), c))
		}
	}
	for _, page := range started {
		for _, custom := range []bool{false, true} {
			c := Case{Format: "openmetrics", Starts: true, Custom: custom}
			cases = append(cases, judged([]byte(page+"# EOF\n"), c))
		}
	}
	for _, page := range protobuf() {
		for _, native := range []bool{false, true} {
			for _, keep := range []bool{false, true} {
				c := Case{Format: "protobuf", Native: native, Classic: keep, Custom: true, Starts: true}
				cases = append(cases, judged(page, c))
			}
		}
	}
	for _, file := range files {
		page, err := os.ReadFile(file)
		if err != nil {
			panic(err)
		}
		if !strings.HasSuffix(file, ".om.txt") {
			c := Case{File: filepath.Base(file), Format: "text", Custom: true}
			cases = append(cases, judged(page, c))
		}
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	fmt.Println("[")
	for i, c := range cases {
		if i > 0 {
			fmt.Print(",")
		}
		if err := out.Encode(c); err != nil {
			panic(err)
		}
	}
	fmt.Println("]")
}
