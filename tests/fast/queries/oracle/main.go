// Writes what prom-label-proxy makes of requests, for ../label_proxy.rs to compare.
//
//	cd tests/fast/queries/oracle && go run . < requests.jsonl > label-proxy.jsonl
//
// A request is [method, target, form]. A line of the answer is the request, the status, and, if it
// was asked upstream, the path there and the parameters of its URL and of its form, sorted.
package main

import (
	"bufio"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"sort"
	"strings"

	"github.com/prometheus-community/prom-label-proxy/injectproxy"
)

func pairs(text string) [][2]string {
	values, err := url.ParseQuery(text)
	if err != nil {
		log.Fatal(err)
	}
	list := [][2]string{}
	for name, all := range values {
		for _, value := range all {
			list = append(list, [2]string{name, value})
		}
	}
	sort.Slice(list, func(a, b int) bool { return list[a][0]+"\x00"+list[a][1] < list[b][0]+"\x00"+list[b][1] })
	return list
}

func main() {
	var asked []any
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = []any{r.URL.Path, pairs(r.URL.RawQuery), pairs(string(body))}
		io.WriteString(w, "{}")
	}))
	defer upstream.Close()
	address, _ := url.Parse(upstream.URL)
	tenant := injectproxy.HTTPHeaderEnforcer{Name: "X-Tenant"}
	proxy, err := injectproxy.NewRoutes(address, "tenant", tenant, injectproxy.WithEnabledLabelsAPI())
	if err != nil {
		log.Fatal(err)
	}
	log.SetOutput(io.Discard)
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var request [3]string
		if err := json.Unmarshal(lines.Bytes(), &request); err != nil {
			panic(err)
		}
		asked = nil
		sent := httptest.NewRequest(request[0], request[1], strings.NewReader(request[2]))
		sent.Header.Set("X-Tenant", "a")
		if request[0] == "POST" {
			sent.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		answer := httptest.NewRecorder()
		proxy.ServeHTTP(answer, sent)
		if err := encoder.Encode([]any{request, answer.Code, asked}); err != nil {
			panic(err)
		}
	}
}
