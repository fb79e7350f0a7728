package main

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/gogo/protobuf/proto"
	"github.com/gogo/protobuf/types"
	dto "github.com/prometheus/prometheus/prompb/io/prometheus/client"
)

var text = []string{
	"",
	"\n\n",
	"a 1\n",
	"a 1",
	"a{} 1\n",
	"a{b=\"c\"} 1\n",
	"a{b=\"c\",} 1 123\n",
	"a { b = \"c\" , d = \"e\" } 1\t123 \n",
	"a{b=\"c\" d=\"e\"} 1\n",
	"a{b=\"c\",,} 1\n",
	"a{,} 1\n",
	"a{b=\"\"} 1\n",
	"a{b=\"1\",b=\"2\"} 1\n",
	"a{__name__=\"b\"} 1\n",
	"{__name__=\"b\"} 1\n",
	"{\"a.b\"} 1\n",
	"{\"a.b\",\"c d\"=\"e\"} 1\n",
	"{c=\"e\",\"a.b\"} 1\n",
	"{\"a\",\"b\"} 1\n",
	"a{\"b\"} 1\n",
	"{\"\"} 1\n",
	"{} 1\n",
	"a{\"\"=\"x\"} 1\n",
	"a{b=\"\\\\ \\n \\\" \\t\"} 1\n",
	"a{b=\"line\nbreak\"} 1\n",
	"a{b=\"\\\n\"} 1\n",
	"{\"a\\\"b\\\\\",\"c\\n\"=\"d\"} 1\n",
	"a{b=\"c\"}1\n",
	"a+1\n",
	"a.5\n",
	"a 1 -5\n",
	"a 1 5.0\n",
	"a 1 99999999999999999999\n",
	"a 1 5 x\n",
	"a\n",
	"a \n",
	"a b\n",
	"1a 1\n",
	"a:b:c 1\n:a 1\n_ 1\n",
	"a{b:c=\"d\"} 1\n",
	"a Inf\nb +Inf\nc -Inf\nd NaN\ne nan\nf +nan\n",
	"a 1e400\n",
	"a 1e-400\na 0x1p3\na 1_0\n",
	"a 0x1\n",
	"a 1.\na .5\na 1E5\na -0\n",
	"a 1\r\n",
	"# HELP a What \\\\ it \\n is \\\" \\x.\n# TYPE a counter\na 1\n",
	"# TYPE a counter\n# HELP a x\na 1\n# HELP b y\nb 2\n",
	"# HELP a\n# HELP b \n# HELP c  two\n",
	"# TYPE a\n",
	"# TYPE a  counter\n",
	"# TYPE a counter \n",
	"# TYPE a histo\n",
	"# TYPE a untyped\n# TYPE a gauge\n# TYPE a summary\n# TYPE a histogram\n",
	"# TYPE \"a.b\" counter\n{\"a.b\"} 1\n",
	"#TYPE a nothing\n#\n# \n#  HELPLESS a\n  # HELP a indented\n#HELP\n",
	"# HELP 1 a\n",
	"# HELP \n",
	"# HELP\n",
	"# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1e6\"} 1\nh_bucket{le=\"0.00001\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_bucket{le=\"x\"} 1\nh_sum 3\nh_count 2\n",
	"# TYPE s summary\ns{quantile=\"0\"} 1\ns{quantile=\"0.5\"} NaN\ns{quantile=\"1\",le=\"1\"} 1\ns_sum 3\ns_count 2\n",
	"# TYPE g gauge\ng{le=\"1\",quantile=\"1\"} 1\n",
	"# a comment \xff that is no UTF-8\na 1\n",
	"a{b=\"\xff\"} 1\n",
	"# HELP a \xff\n",
	"{\"a\xff\"} 1\n",
	"a{\"b\xff\"=\"c\"} 1\n",
	"a{b=\"\u00e9\u2028\U0001f600\"} 1\n# HELP a \u00e9\n",
	"a 1\n\x00b 2\nc{\n",
	"a{b=\"x\x00y\"} 1\n",
	"#x\x00\nb{\n",
	"# x\x00\nb 1\n",
	"<html><body>nothing</body></html>\n",
	"{\"status\":\"ok\"}\n",
	"a{b='c'} 1\n",
	"a{b=c} 1\n",
	"a{b=\"c} 1\n",
	"a{b=\"c\" 1\n",
	"a{b=\"c\"\n} 1\n",
	"a{b=\"c\"}{d=\"e\"} 1\n",
	"a 1 2 3\n",
	"a {b=\"c\"} 1\n",
	"a b=\"c\" 1\n",
	"a{b=\"c\"} 1 # {d=\"e\"} 2\n",
	"# EOF\n",
	"a 1\n# EOF\nb 1\n",
}

// classic are pages of histograms, in text and, with an end, in OpenMetrics.
var classic = []string{
	"# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"2.5\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_count 3\nh_sum 7.5\n",
	"# TYPE h histogram\nh_count{a=\"1\"} 3\nh_sum{a=\"1\"} 7\nh_bucket{a=\"1\",le=\"1\"} 2\nh_bucket{le=\"0.5\",a=\"2\"} 1\nh_bucket{le=\"+Inf\",a=\"2\"} 4\nh_count{a=\"2\"} 4\nh_sum{a=\"2\"} 1\n",
	"# TYPE h histogram\nh_bucket{le=\"5\"} 3\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"5.0\"} 9\nh_count 4\nh_sum 1\n",
	"# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"2\"} 1\nh_count 2\nh_sum 1\n",
	"# TYPE h histogram\nh_bucket{le=\"1\"} -1\nh_count 2\n# TYPE i histogram\ni_count 2\ni_sum 3\n",
	"# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 2\nh_count 3\n",
	"# TYPE h histogram\nh_bucket{le=\"1\"} 0.5\nh_bucket{le=\"+Inf\"} 2\nh_count 2\nh_sum 1\n",
	"# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"x\"} 2\nh_bucket{le=\"NaN\"} 2\nh_bucket 7\nh_count 2\nh 4\n",
	"# TYPE h histogram\nh_sum 2\n# TYPE g gauge\nh_count 3\ng_bucket{le=\"1\"} 1\ng 2\n",
	"# TYPE h histogram\nh_bucket{le=\"1\"} 1\nother_bucket{le=\"1\"} 1\nh_bucket{le=\"2\"} 2\nh_count 2\nh_sum 1\n",
	"# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"2\"} 1\nh_bucket{le=\"3\"} 1\nh_bucket{le=\"4\"} 1\nh_bucket{le=\"5\"} 2\nh_bucket{le=\"6\"} 2\nh_bucket{le=\"+Inf\"} 2\nh_sum NaN\nh_count 2\n",
	"# TYPE h histogram\n# HELP h What.\nh_bucket{le=\"1\"} 1\nh_count 1\n# HELP h Again.\nh_sum 4\n",
	"# TYPE \"a.h\" histogram\n{\"a.h_bucket\",le=\"1\"} 1\n{\"a.h_count\"} 1\n{\"a.h_sum\"} 1\n",
	"# TYPE s summary\ns_count 1\ns_sum 1\ns{quantile=\"1\"} 1\n",
}

// started are pages of OpenMetrics without their end.
var started = []string{
	"# TYPE c counter\nc_total 1\nc_created 1.5\n",
	"# TYPE c counter\nc_total{a=\"1\"} 1\nc_created{a=\"1\"} 1.25\nc_total{a=\"2\"} 2\nc_created{a=\"2\"} 2e3\nc_total{a=\"3\"} 3\n",
	"# TYPE c counter\nc_total{a=\"1\"} 1 # {i=\"_created\"} 1 2\nc_created{a=\"1\"} 7\n# TYPE d counter\nd_total 1\nc_created 3\n",
	"# TYPE h histogram\nh_bucket{a=\"1\",le=\"1\"} 1\nh_bucket{a=\"1\",le=\"+Inf\"} 2\nh_count{a=\"1\"} 2\nh_sum{a=\"1\"} 3\nh_created{a=\"1\"} 4\nh_bucket{a=\"2\",le=\"+Inf\"} 2\nh_count{a=\"2\"} 2\nh_sum{a=\"2\"} 3\nh_created{a=\"2\"} 5\n",
	"# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_count 1\ns_sum 1\ns_created 5\n# TYPE g gauge\ng 1\ng_created 6\n",
	"# TYPE c counter\nc_total 1\nc_created 0\n# TYPE d counter\nd_total 1\nd_created -1\n",
	"# TYPE \"a.b\" counter\n{\"a.b_total\",x=\"1\"} 1\n{\"a.b_created\",x=\"1\"} 3\n",
	"c_total 1\nc_created 2\n# TYPE c counter\nc_total 1\nc_created x\n",
}

var openmetrics = []string{
	"",
	"# EOF",
	"# EOF\n",
	"# EOF\n\n",
	"# EOF\na 1\n",
	"\n# EOF\n",
	"a 1\n",
	"a 1\n# EOF\n",
	"a 1",
	"a  1\n# EOF\n",
	"a 1 \n# EOF\n",
	"a\t1\n# EOF\n",
	"a{} 1\n# EOF\n",
	"a{b=\"c\"} 1\n# EOF\n",
	"a{b=\"c\",} 1\n# EOF\n",
	"a{b=\"c\" } 1\n# EOF\n",
	"a{b=\"c\",d=\"e\"} 1 1.5\n# EOF\n",
	"a{b=\"c\"d=\"e\"} 1\n# EOF\n",
	"a{b=\"c\",,} 1\n# EOF\n",
	"a{b=\"line\nbreak\"} 1\n# EOF\n",
	"a{b=\"\\n\\\"\\\\\\x\"} 1\n# EOF\n",
	"{\"a.b\",c=\"d\"} 1\n# EOF\n",
	"{c=\"d\",\"a.b\"} 1\n# EOF\n",
	"{\"a.b\",\"c\"} 1\n# EOF\n",
	"{\"a b\"} 1\n# EOF\n",
	"{c=\"d\"} 1\n# EOF\n",
	"a 1 1520879607.789\n# EOF\n",
	"a 1 -1.0015\n# EOF\n",
	"a 1 1e3\n# EOF\n",
	"a 1 NaN\n# EOF\n",
	"a 1 Inf\n# EOF\n",
	"a 1 1e300\n# EOF\n",
	"a 1 2 3\n# EOF\n",
	"a 1 x\n# EOF\n",
	"# comment\n# EOF\n",
	"#\n# EOF\n",
	"# HELP a What \\\\ it \\n is \\\" \\x.\n# TYPE a counter\na_total 1\n# EOF\n",
	"# HELP a\n# EOF\n",
	"# HELP a \n# EOF\n",
	"# HELP a  two\n# EOF\n",
	"# TYPE a counter\n# UNIT a seconds\n# EOF\n",
	"# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1\na_seconds_created 2\n# EOF\n",
	"# UNIT aseconds seconds\n# EOF\n",
	"# UNIT seconds seconds\n# EOF\n",
	"# UNIT a \n# EOF\n",
	"# UNIT a\n# EOF\n",
	"# TYPE a untyped\n# EOF\n",
	"# TYPE a unknown\n# TYPE b gaugehistogram\n# TYPE c info\n# TYPE d stateset\n# TYPE e summary\n# TYPE f gauge\n# TYPE g histogram\n# EOF\n",
	"# TYPE \"a.b\" gauge\n# HELP \"a.b\" x\n{\"a.b\"} 1\n# EOF\n",
	"# TYPE h histogram\nh_bucket{le=\"1\"} 1 # {trace_id=\"x\"} 0.5\nh_bucket{le=\"+Inf\"} 1 2 # {trace_id=\"x\",span=\"y\"} 0.5 1.5\nh_count 1 # {} 1\n# EOF\n",
	"a_total 1 # {a=\"b\"} 1 2\n# EOF\n",
	"a_total 1 # {a=\"b\",} 1\n# EOF\n",
	"a_total 1 # {a=\"b\"d=\"e\"} 1\n# EOF\n",
	"a_total 1 # {\"a.b\"=\"c\\\"\\n\"} 1\n# EOF\n",
	"a_total 1 # {\"a\"} 1\n# EOF\n",
	"a_total 1 # {a=\"b\"}\n# EOF\n",
	"a_total 1 # {a=\"b\"} x\n# EOF\n",
	"a_total 1 # {a=\"b\"} 1 x\n# EOF\n",
	"a_total 1 # {a=\"b\"} 1 NaN\n# EOF\n",
	"a_total 1 # {a=\"b\"} 1 2 3\n# EOF\n",
	"a_total 1 # {a=\"b\"} 1 # {a=\"b\"} 1\n# EOF\n",
	"a_total 1 #{a=\"b\"} 1\n# EOF\n",
	"a_total 1 # a\n# EOF\n",
	"a_total # {a=\"b\"} 1\n# EOF\n",
	"a_total 1 # {a=\"\xff\"} 1\n# EOF\n",
	"a{b=\"\xff\"} 1\n# EOF\n",
	"# HELP a \xff\n# EOF\n",
	"a{b=\"\u00e9\"} NaN\n# EOF\n",
	"a 1\r\n# EOF\n",
	"# EOF\r\n",
	"# TYPE s summary\ns{quantile=\"1\"} 1\ns_created 5\n# EOF\n",
}

var (
	infinity = math.Inf(1)
	nan      = math.NaN()
)

func delimited(families ...*dto.MetricFamily) []byte {
	var out bytes.Buffer
	for _, family := range families {
		message, err := proto.Marshal(family)
		if err != nil {
			panic(err)
		}
		out.Write(binary.AppendUvarint(nil, uint64(len(message))))
		out.Write(message)
	}
	return out.Bytes()
}

func protobuf() [][]byte {
	at := &types.Timestamp{Seconds: 5, Nanos: 7_900_000}
	pairs := []dto.LabelPair{{Name: "b", Value: "1"}, {Name: "a", Value: "2"}}
	example := &dto.Exemplar{Label: []dto.LabelPair{{Name: "trace_id", Value: "x"}}, Value: 3, Timestamp: at}
	untimed := &dto.Exemplar{Label: []dto.LabelPair{{Name: "trace_id", Value: "y"}}, Value: 4}
	metric := func(metric dto.Metric) []dto.Metric { return []dto.Metric{metric} }
	native := func(change func(*dto.Histogram)) *dto.MetricFamily {
		h := &dto.Histogram{
			SampleCount: 10, SampleSum: 12.5, Schema: 3, ZeroThreshold: 1e-128, ZeroCount: 1,
			PositiveSpan:  []dto.BucketSpan{{Offset: -2, Length: 2}, {Offset: 3, Length: 1}},
			PositiveDelta: []int64{1, 1, 0},
			NegativeSpan:  []dto.BucketSpan{{Offset: 0, Length: 2}},
			NegativeDelta: []int64{3, -2},
			Bucket: []dto.Bucket{
				{CumulativeCount: 3, UpperBound: -1, Exemplar: untimed},
				{CumulativeCount: 7, UpperBound: 1e7, Exemplar: example},
			},
		}
		change(h)
		return &dto.MetricFamily{Name: "h", Type: dto.MetricType_HISTOGRAM, Help: "A help.", Unit: "seconds",
			Metric: metric(dto.Metric{Label: pairs, Histogram: h})}
	}
	same := func(*dto.Histogram) {}
	gauge := native(same)
	gauge.Type = dto.MetricType_GAUGE_HISTOGRAM
	two := native(same)
	two.Metric = append(two.Metric, dto.Metric{Histogram: &dto.Histogram{SampleCount: 2, Bucket: []dto.Bucket{{CumulativeCount: 2, UpperBound: 1}}}})
	pages := [][]byte{
		{},
		delimited(&dto.MetricFamily{Name: "c", Type: dto.MetricType_COUNTER, Metric: metric(dto.Metric{Label: pairs, Counter: &dto.Counter{Value: 5, Exemplar: example}, TimestampMs: 77})}),
		delimited(&dto.MetricFamily{Name: "c", Type: dto.MetricType_COUNTER, Metric: metric(dto.Metric{Counter: &dto.Counter{Value: 5, Exemplar: untimed}})}),
		delimited(&dto.MetricFamily{Name: "g", Help: "What \\ it\nis.", Type: dto.MetricType_GAUGE, Metric: metric(dto.Metric{Gauge: &dto.Gauge{Value: -1}})},
			&dto.MetricFamily{Name: "u.v", Type: dto.MetricType_UNTYPED, Metric: metric(dto.Metric{Untyped: &dto.Untyped{Value: 2}})}),
		delimited(&dto.MetricFamily{Name: "s", Type: dto.MetricType_SUMMARY, Metric: metric(dto.Metric{Summary: &dto.Summary{SampleCount: 3, SampleSum: 4.5, Quantile: []dto.Quantile{{Quantile: 0, Value: 1}, {Quantile: 0.99, Value: 7}}}})}),
		delimited(&dto.MetricFamily{Name: "s", Type: dto.MetricType_SUMMARY, Metric: metric(dto.Metric{Summary: &dto.Summary{SampleCount: 3}})}),
		delimited(&dto.MetricFamily{Name: "empty", Type: dto.MetricType_GAUGE}, &dto.MetricFamily{Name: "g", Type: dto.MetricType_GAUGE, Metric: metric(dto.Metric{})}),
		delimited(&dto.MetricFamily{Name: "", Type: dto.MetricType_GAUGE, Metric: metric(dto.Metric{Gauge: &dto.Gauge{Value: 1}})}),
		delimited(&dto.MetricFamily{Name: "x", Type: 9, Metric: metric(dto.Metric{Gauge: &dto.Gauge{Value: 1}})}),
		delimited(&dto.MetricFamily{Name: "x", Type: dto.MetricType_GAUGE, Metric: metric(dto.Metric{Label: []dto.LabelPair{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}, Gauge: &dto.Gauge{Value: 1}})}),
		delimited(native(same)),
		delimited(native(func(h *dto.Histogram) { h.Exemplars = []*dto.Exemplar{example, untimed, example} })),
		delimited(native(func(h *dto.Histogram) { h.Bucket = nil })),
		delimited(native(func(h *dto.Histogram) {
			h.Bucket = append(h.Bucket, dto.Bucket{CumulativeCount: 10, UpperBound: infinity})
		})),
		delimited(gauge), delimited(two),
		// No observations yet, and an empty span that says that it is native.
		delimited(native(func(h *dto.Histogram) { *h = dto.Histogram{PositiveSpan: []dto.BucketSpan{{}}} })),
		delimited(native(func(h *dto.Histogram) { *h = dto.Histogram{} })),
		// Floats.
		delimited(native(func(h *dto.Histogram) {
			*h = dto.Histogram{SampleCountFloat: 4.5, SampleSum: 1, ZeroCountFloat: 0.5, ZeroThreshold: 0.1,
				PositiveSpan: []dto.BucketSpan{{Length: 2}}, PositiveCount: []float64{1, 3}}
		})),
		delimited(native(func(h *dto.Histogram) { h.PositiveCount = []float64{-1, 0, 1} })),
		// Contradictions.
		delimited(native(func(h *dto.Histogram) { h.SampleCount = 11 })),
		delimited(native(func(h *dto.Histogram) { h.SampleCount = 11; h.SampleSum = nan })),
		delimited(native(func(h *dto.Histogram) { h.PositiveDelta = []int64{1, -2, 3} })),
		delimited(native(func(h *dto.Histogram) { h.PositiveDelta = []int64{1} })),
		delimited(native(func(h *dto.Histogram) { h.PositiveSpan[1].Offset = -1 })),
		delimited(native(func(h *dto.Histogram) { h.NegativeSpan = nil })),
	}
	whole := delimited(native(same))
	pages = append(pages, whole[:len(whole)-1], append([]byte{0xff}, whole...), append(whole, 1))
	return pages
}
