// Command targets writes down what Prometheus reads of lists of targets.
//
//	go run . > golden.json
//
// Each case of cases.go is read as file_sd reads a file of that ending. What http_sd reads is the
// JSON of it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/file"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

// Case is a text with what is read of it.
type Case struct {
	Text string `json:"text"`
	YAML bool   `json:"yaml"`
	OK   bool   `json:"ok"`
	// Targets are the labels of each target, sorted by their JSON.
	Targets []map[string]string `json:"targets"`
}

// read has file_sd read the text, which tells of nothing when it refuses it.
func read(text, ending string) ([]*targetgroup.Group, bool) {
	dir, err := os.MkdirTemp("", "targets")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "a."+ending)
	// Read after the text, so that what comes of the text is known by then.
	last := filepath.Join(dir, "b.json")
	for name, content := range map[string]string{path: text, last: `[{"targets":["last"]}]`} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			panic(err)
		}
	}
	conf := &file.SDConfig{Files: []string{path, last}, RefreshInterval: model.Duration(time.Hour)}
	reg := prometheus.NewRegistry()
	metrics := conf.NewDiscovererMetrics(reg, discovery.NewRefreshMetrics(reg))
	disc, err := file.NewDiscovery(conf, promslog.NewNopLogger(), metrics)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	groups := make(chan []*targetgroup.Group)
	go disc.Run(ctx, groups)
	var found []*targetgroup.Group
	ok := false
	for {
		got := <-groups
		if len(got) == 1 && got[0].Source == last+":0" {
			return found, ok
		}
		found, ok = got, true
	}
}

func main() {
	var golden []Case
	for _, c := range cases() {
		ending := "json"
		if c.YAML {
			ending = "yaml"
		}
		groups, ok := read(c.Text, ending)
		c.OK = ok
		c.Targets = []map[string]string{}
		for _, group := range groups {
			for _, target := range group.Targets {
				labels := map[string]string{}
				// As Prometheus puts them together: those of the target stand above those of the
				// group, and one without a value is none.
				for name, value := range group.Labels.Merge(target) {
					if value != "" && name != "__meta_filepath" {
						labels[string(name)] = string(value)
					}
				}
				c.Targets = append(c.Targets, labels)
			}
		}
		sort.Slice(c.Targets, func(i, j int) bool { return text(c.Targets[i]) < text(c.Targets[j]) })
		golden = append(golden, c)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", " ")
	out.SetEscapeHTML(false)
	if err := out.Encode(golden); err != nil {
		panic(err)
	}
}

func text(labels map[string]string) string {
	var pairs []string
	for name, value := range labels {
		pairs = append(pairs, fmt.Sprintf("%q=%q", name, value))
	}
	sort.Strings(pairs)
	return fmt.Sprint(pairs)
}
