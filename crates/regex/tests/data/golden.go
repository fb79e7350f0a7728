// Generates the golden data beside it with Go's own regexp, unicode and strings packages:
//
//	go run golden.go
//
// regex.jsonl: patterns, whether Go compiles them, and what they match and expand to.
// unicode.json: the names that \p{..} takes, and the simple case mappings.
//
// Written for Go 1.26; only the standard library is used, and the output depends on nothing else.
package main

import (
	"bufio"
	"encoding/json"
	"math/rand"
	"os"
	"regexp"
	"regexp/syntax"
	"sort"
	"strings"
	"unicode"
)

type entry struct {
	Pattern string   `json:"pattern"`
	OK      bool     `json:"ok"`
	Error   string   `json:"error,omitempty"`
	Names   []string `json:"names,omitempty"`
	// The templates whose expansions the cases hold.
	Templates []string `json:"templates,omitempty"`
	Cases     []result `json:"cases,omitempty"`
}

type result struct {
	In string `json:"in"`
	// Submatch indexes, absent without a match.
	Match []int    `json:"match,omitempty"`
	Out   []string `json:"out,omitempty"`
}

var templates = []string{
	"", "x", "$1", "${1}", "$1x", "${1}x", "$01", "${01}", "$0", "${0}", "$$", "$$1", "$", "a$", "$ ",
	"${}", "${", "${1", "${a b}", "${ 1}", "$-1", "$1$2", "$2-$1", "$name", "${name}", "${name}x",
	"$name_x", "$é", "${é}x", "$1é", "$10", "$99999999999", "$_", "${_}", "$x1", "$1.$2", "é$1ü", "$²",
	"$٣", "$ⅷ", "{$1}", "$${1}", "$$$1", "a$1b$2c$3", "$1a", "${1a}", "$00", "$100000000",
}

var inputs = []string{
	"", "a", "b", "ab", "ba", "abc", "aa", "aaa", "aab", "A", "AB", "aB", "1", "12", "é", "É", "ß", "ẞ",
	"K", "k", "K", "ſ", "s", "S", "İ", "i", "I", "ı", "\n", "a\nb", " ", "_", "-", "a-b", "]", "[", "{", "}",
	"a{", "a{,5}", "{5}", "<", ">", "&", "a&b", "٣", "x", "z", "d", "e", "node_cpu_seconds_total",
	"go_gc_duration_seconds", "go_gc_", "up", "foo.bar:9090", "192.168.0.1:80", "日本", "α", "Ω", "Ω", "ω",
	"ᾳ", "ᾼ", "ǅ", "ǆ", "Ǆ", "²", "ⅷ", "\\", "\\d", "*", ".", "a.b", "\t", "\r", "\v", "\x07", "\x00",
	"😀", "\u00a0", "\u2028", "1a", "a1", "foo-bar", "foo", "bar", "foobar", "FOO", "é_b", "aéb",
}

var patterns = []string{
	// Ordinary rules.
	"", "(.*)", "(.+)", ".*", ".+", "go_gc_.*", "go_gc_.+", ".*_total", ".*_seconds_.*", "up", "foo|bar|baz",
	"(foo|bar)", "(?:foo|bar).*", "(.+):(\\d+)", "([^:]+)(?::\\d+)?", "node_(cpu|mem)_.*", "a?", "a*", "a+",
	"(a)(b)?(c)?", "(?P<name>a.*)", "(?P<name>.)(?<other>.*)", "(?<name>.+)", "(.)(.)", "(.)(.)?(.)?", "a|b|ab",
	"a|ab", "ab|a", "(a|ab)(c|bcd)?", "(a*)(a*)", "(a*?)(a*)", "(a+?)(a*)", "(a??)(a*)", "(|a)*", "(|a)+",
	"(a|)*", "(a*)*", "(a*)+", "(a*)?", "(a?)*", "(a|b)*", "((a)|(b))*", "((a)|b)*", "(a)|(b)", "(?:(a)|(b))+",
	"()", "(())", "(?:)", "()*", "()+", "a||b", "|a", "a|", "|", "(|)", "x*|a",
	// ASCII classes.
	"\\d", "\\D", "\\w", "\\W", "\\s", "\\S", "\\d+", "\\w+", "\\w*", "[\\d]", "[^\\d]", "[\\D]", "[\\w-]+",
	"[\\d-z]", "[\\d-z]+", "[a-\\d]", "[\\w.]+", "[\\s\\S]", "[^\\W]", "(?i)\\w", "(?i)\\W", "(?i)[\\W]",
	"(?i)[^\\W]", "(?i)[\\w]", "(?i)\\d", "\\S+\\s\\S+",
	// Word boundaries.
	"\\ba\\b", "a\\b.*", "\\B", "\\b", ".\\B.", ".\\b.", "é\\b_b", "é\\B_b", "a\\béb", "a\\Béb", "\\b*a", "\\b+a", "^*a",
	"$*", "(?:^)*a", "\\b?a",
	// Escaped punctuation.
	"\\<", "\\>", "\\<a\\>", "\\_", "\\-", "\\.", "\\\\", "\\\\d", "\\*", "\\&", "\\~", "\\#", "\\ ", "\\@", "\\/", "\\\"", "\\'",
	"\\%", "\\é", "\\q", "\\y", "\\e", "\\c", "\\h", "\\K", "\\R", "\\X", "\\N", "\\Z", "\\G", "\\u0061", "\\U00000061",
	"\\", "a\\", "\\A", "\\Aa", "a\\z", "\\z", "\\za", "a\\A", "\\C", "\\E", "\\Q", "\\Q\\E", "\\Qa.b\\E", "\\Qa.b",
	"\\Q[\\E", "\\Q*\\E*", "\\Qab\\E+", "\\Q\\E*", "a\\Q\\E*", "a*\\Q\\E*", "\\Q\\\\E", "a\\E", "\\Q\\d\\E", "[\\Qa\\E]", "(\\Q)\\E)",
	// Sets.
	"[a]", "[^a]", "[]a]", "[^]a]", "[]]", "[]", "[^]", "[[]", "[[a]", "[[]a]", "[a[b]]", "[a[b]", "[a&&b]", "[a&&b]+",
	"[&&]", "[a--b]", "[--b]", "[a-]", "[-a]", "[-]", "[a-b-c]", "[b-a]", "[a~~b]", "[a||b]", "[a-z&&[aeiou]]", "[a", "[a-",
	"[a-z", "[\\", "[\\]", "[\\]]", "[\\[]", "[\\^a]", "[a^]", "[^^]", "[.]", "[.*]", "[$]", "[(]", "[)]", "[|]", "[{}]",
	"[\\n]", "[\\x41-\\x43]", "[\\x{41}-\\x{43}]", "[\\101-\\103]", "[\\0]", "[\\1]", "[\\b]", "[\\B]", "[\\A]", "[\\z]", "[\\<]",
	"[\\a\\f\\t\\n\\r\\v]", "[é-ü]", "[日]", "[^\\x00-\\x{10FFFF}]", "[\\x00-\\x{10FFFF}]", "[^\\n]", "[^a]", "[\\s\\d]+",
	"[\\-]", "[a\\-z]+", "[+--]", "[*-.]", "[#-&]", "[!-~]+", "[ -~]*", "[[:alpha:]]", "[[:^alpha:]]", "[^[:alpha:]]",
	"[^[:^alpha:]]", "[[:alpha:][:digit:]]+", "[[:word:]]+", "[[:ascii:]]", "[[:foo:]]", "[[:alpha:]", "[:alpha:]", "[[:alpha]]",
	"[[:blank:]]", "[[:cntrl:]]", "[[:graph:]]", "[[:lower:]]", "[[:print:]]", "[[:punct:]]", "[[:space:]]", "[[:upper:]]",
	"[[:xdigit:]]", "[[:alnum:]]", "[[:digit:]]", "[[:]]", "[[:a]", "[[.a.]]", "[[=a=]]", "(?i)[[:upper:]]", "(?i)[[:^upper:]]",
	"(?i)[^[:lower:]]", "[[:alpha:]-z]", "[a-[:alpha:]]", "[[:Alpha:]]", "[[::]]",
	// Repetition.
	"a{2}", "a{2,}", "a{1,2}", "a{0}", "a{0,0}", "a{0,1}", "a{,5}", "a{", "a{,", "a{}", "a{1", "a{1,", "a{1,2", "a{a}", "a{ 1}",
	"a{1 }", "a{01}", "a{1,02}", "a{00}", "{", "{5}", "{,5}", "}", "a}", "a{-1}", "a{2,1}", "a{1000}", "a{1001}", "a{0,1001}",
	"a{1001,}", "a{1000,}", "a{99999999999}", "a{1,99999999999}", "(a{100}){10}", "(a{100}){11}", "((a{10}){10}){10}",
	"((a{10}){10}){11}", "(a{100,}){11}", "(a{0}){1000}", "(a{0,1000}){2}", "(a{1000}){0}", "(a{1000}){1}", "((a{1000}){0}){2}", "((a{1000}){1}){2}", "(a{600}){2}", "a{600}(b{2})", "(?:a{600}|b){2}", "(a{500}|b){2}",
	"(a{500}|b{501}){2}", "(?:a{2}){2}", "a{2}{3}", "a{2}*", "a{2}?", "a{2}??", "a**", "a*+", "a++", "a+*", "a?*", "a*?", "a+?",
	"a??", "a*??", "a???", "a|*", "|*", "*", "+", "?", "*a", "(*a)", "(?:*)", "(+)", "(|*)", "^*", "a(?i)*", "(?i)*", "a*(?i)*", "a*(?:)*",
	"a+(?i)?", "(a{2})*", "(?i:a)*", "(?i:a){2}", "a{2}(?i){3}", "(a|b){2}", "[ab]{2}", ".{2}", ".{1,2}?", "\\d{2}", "(?U)a{1,2}",
	// Escapes by number.
	"\\141", "\\0", "\\01", "\\012", "\\0123", "\\08", "\\1", "\\8", "\\9", "\\12", "\\123", "\\777", "\\400", "\\x61", "\\x6", "\\x",
	"\\xg", "\\x{61}", "\\x{}", "\\x{0061}", "\\x{110000}", "\\x{10FFFF}", "\\x{D800}", "[\\x{D800}]", "[\\x{D800}-\\x{DFFF}]",
	"[\\x{D7FF}-\\x{E000}]", "[^\\x{D800}]", "\\x{61", "\\x{6g}", "\\x{ 61}", "\\x{00000000061}", "\\a", "\\f", "\\n", "\\r", "\\t", "\\v",
	"\\x{D800}*", "(?i)\\x{D800}", "(?i)\\x{212A}", "(?i)\\x{17F}", "(?i)[\\x{D800}a]",
	// Flags.
	"(?i)a", "(?i)AB", "(?i)ab", "(?-i)a", "(?i)a(?-i)b", "(?i:a)b", "a(?i)b", "a(?i)b|B", "(?:a(?i)b|c)C", "(a(?i)b)C", "(?s).", "(?-s).",
	"(?-s).*", "(?-s:.)", "(?-s)a.b", "(?s-i).", "(?m)^a", "(?m)a$", "(?m)^", "(?m)a$.^b", "(?m)a$\\n^b", "a$\\nb", "a\\n^b", "(?m-m)a$",
	"(?U)a*", "(?U)(a*)(a*)", "(?U)(a*?)(a*)", "(?U)(a+)(a*)", "(?U)(a??)(a*)", "(?U:(a*))(a*)", "(?i)k", "(?i)K", "(?i)s", "(?i)ſ",
	"(?i)ß", "(?i)ẞ", "(?i)ss", "(?i)i", "(?i)İ", "(?i)ı", "(?i)é", "(?i)α", "(?i)Ω", "(?i)Ω", "(?i)ᾳ", "(?i)ǆ", "(?i)[a-z]", "(?i)[^a-z]",
	"(?i)[k]", "(?i)[^k]", "(?i)[s]", "(?i)foo|bar", "(?i)go_GC_.*", "(?x)a", "(?x) a b", "(?ix)a", "(?u)a", "(?R)a", "(?a)", "(?)", "(?)a",
	"(?-)a", "(?i-)a", "(?--i)a", "(?i-s)a", "(?ii)a", "(?i-i)a", "(?imsU)a", "(?-imsU)a", "(?:a)", "(?i:)", "(?i", "(?", "(?i:a", "(?:", "(?i-s:.)",
	"(?-:a)", "(?#a)", "(?=a)", "(?!a)", "(?<=a)", "(?<!a)", "(?>a)", "(?|a)", "(?'n'a)", "(?&a)", "(?1)", "(?+1)", "(? i)a",
	// Groups and names.
	"(a", "a)", "(a))", "((a)", ")", "(", "a)|(b", ")(", "(?P<n>a)", "(?P<n>a)(?P<n>b)", "(?<n>a)(?P<n>b)", "(?P<1>a)", "(?P<1a>a)", "(?P<_>a)",
	"(?P<>a)", "(?<>a)", "(?P<a-b>a)", "(?P<é>a)", "(?P<a b>a)", "(?P<n>a", "(?P<n", "(?P<", "(?P", "(?P=n)", "(?P>n)", "(?Pn)", "(?<n", "(?<",
	"(?P<name>foo)(?P<x1>-?)(?P<_>b?)(.*)", "(?P<01>.)(.*)", "(?P<n>)", "(?P<name>a)|(?P<other>b)", "(?P<name>a)?(?P<other>b)?.*",
	// Unicode groups.
	"\\pL", "\\PL", "\\pN", "\\p{L}", "\\p{Lu}", "\\p{Ll}", "\\p{Nd}", "\\P{Nd}", "\\p{^Nd}", "\\P{^Nd}", "[\\pL]", "[^\\pL]", "[\\PL]", "[\\pL\\d]+",
	"\\p{Greek}", "\\p{Latin}", "\\p{Han}", "\\p{Han}+", "\\p{Foo}", "\\p{}", "\\p{", "\\p", "\\pz", "\\p{L", "\\p{^}", "\\p^", "\\p{Any}",
	"\\P{Any}", "\\p{ASCII}", "\\p{ascii}", "\\p{Assigned}", "\\P{Assigned}", "\\p{Cn}", "\\p{LC}", "\\p{Lc}", "\\p{C}", "\\p{Cc}", "\\p{Cs}", "\\P{Cs}",
	"\\p{Co}", "\\p{Letter}", "\\p{letter}", "\\p{Uppercase_Letter}", "\\p{uppercase letter}", "\\p{Decimal-Number}", "\\p{greek}", "\\p{GREEK}",
	"\\p{Old_Italic}", "\\p{OldItalic}", "\\p{old italic}", "\\p{Alphabetic}", "\\p{Alpha}", "\\p{White_Space}", "\\p{sc=Greek}", "\\p{Script=Greek}",
	"\\p{gc=L}", "\\p{scx=Greek}", "\\p{L&}", "\\p{Lm}", "\\p{Lo}", "\\p{Lt}", "\\p{M}", "\\p{P}", "\\p{S}", "\\p{Z}", "\\p{Zs}", "\\p{Nl}", "\\p{No}", "\\p{Sc}",
	"(?i)\\p{Lu}", "(?i)\\P{Lu}", "(?i)[\\P{Lu}]", "(?i)[^\\p{Lu}]", "(?i)\\p{Ll}", "(?i)\\p{Greek}", "(?i)\\p{ASCII}", "(?i)\\P{ASCII}", "(?i)\\p{Lt}",
	"\\p{Common}", "\\p{Inherited}", "\\p{Zyyy}", "\\p{Grek}", "\\p{punct}", "\\p{digit}", "\\p{Punctuation}", "\\p{Number}", "\\p{cntrl}", "\\p{Combining_Mark}",
	// Anchors inside, dots and the rest.
	"^a$", "^a", "a$", "^", "$", "^^a$$", "a^b", "a$b", "(^a|b$)", "(^)a($)", ".", "..", "...", "é.*", ".*é.*", "日.", "😀", ".*\\..*", "a\\.b", "foo-bar",
	"#", "a b", " ", "~", "&&", "--", "a-b", "\x00", "\n", "a\nb", "\t", "(a)(b)(c)(d)?(e)?(f)?(g)?(h)?(i)?(j)?.*", "((((((((((a))))))))))",
	".*a.*b.*", "foo.+", ".+foo", "foo.*bar", "(foo).*", "(?:foo.*|bar.*)", "foo.*|.*bar|baz", "(?:a|b)(?:1|2)", "foo(?:bar)?", "fo{2}", "[ab][12]?", "(foo|foobar).*",
}

// grammar makes patterns of an alphabet that is rich in what goes wrong.
type grammar struct{ r *rand.Rand }

func (g grammar) pick(options ...string) string { return options[g.r.Intn(len(options))] }

func (g grammar) pattern(depth int) string {
	var b strings.Builder
	for n := g.r.Intn(4); n >= 0; n-- {
		b.WriteString(g.atom(depth))
		if g.r.Intn(3) == 0 {
			b.WriteString(g.pick("*", "+", "?", "*?", "+?", "??", "{2}", "{0,2}", "{1,}", "{1,2}?", "{"))
		}
		if g.r.Intn(7) == 0 {
			b.WriteString("|")
		}
	}
	return b.String()
}

func (g grammar) atom(depth int) string {
	if depth > 0 && g.r.Intn(3) == 0 {
		return g.pick("(", "(", "(", "(?:", "(?i:", "(?U:", "(?m:", "(?-s:", "(?P<name>", "(?<n2>") + g.pattern(depth-1) + ")"
	}
	switch g.r.Intn(12) {
	case 0:
		return "[" + g.pick("", "^") + g.item() + g.item() + "]"
	case 1:
		return g.pick("\\d", "\\w", "\\W", "\\s", "\\b", "\\B", "\\A", "\\z", "^", "$", "\\pL", "\\P{Lu}")
	case 2:
		return g.pick("(?i)", "(?-i)", "(?U)", "(?m)", "(?-s)", "\\Qa*\\E", "\\<", "\\x61", "\\141", "\\_", "{", "}", "]")
	case 3:
		return "."
	default:
		return g.pick("a", "a", "b", "b", "c", "A", "é", "k", "ß", "_", "\n", "-")
	}
}

func (g grammar) item() string {
	return g.pick("a", "b", "-", "a-c", "&&", "[", "]", "^", "\\d", "\\w", "\\W", "[:alpha:]", "[:^upper:]", "\\pL", "\\]", "\\-", "é-ü", "k", "~~", "--", "\\x41-\\x43", "\\s")
}

func (g grammar) input() string {
	var b strings.Builder
	for n := g.r.Intn(7); n > 0; n-- {
		b.WriteString(g.pick("a", "a", "a", "b", "b", "c", "A", "B", "é", "É", "k", "K", "ß", "ẞ", "_", "\n", "-", "1", "{", "*", "&", "]", "<"))
	}
	return b.String()
}

func main() {
	regexes()
	tables()
}

func compile(pattern string) (*regexp.Regexp, error) {
	// By itself first: Prometheus compiles ")|(" without an error.
	if _, err := syntax.Parse(pattern, syntax.Perl|syntax.DotNL); err != nil {
		return nil, err
	}
	return regexp.Compile("^(?s:" + pattern + ")$")
}

func evaluate(pattern string, inputs, templates []string, misses bool) entry {
	re, err := compile(pattern)
	if err != nil {
		return entry{Pattern: pattern, Error: err.Error()}
	}
	e := entry{Pattern: pattern, OK: true, Names: re.SubexpNames(), Templates: templates}
	for _, in := range inputs {
		match := re.FindStringSubmatchIndex(in)
		if match == nil && !misses {
			continue
		}
		c := result{In: in, Match: match}
		if match != nil {
			for _, t := range templates {
				c.Out = append(c.Out, string(re.ExpandString(nil, t, in, match)))
			}
		}
		e.Cases = append(e.Cases, c)
	}
	return e
}

func regexes() {
	file, err := os.Create("regex.jsonl")
	check(err)
	defer file.Close()
	out := bufio.NewWriter(file)
	defer out.Flush()
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	// The first line holds the inputs: where an entry has no case for one of them, it does not match.
	check(encoder.Encode(inputs))
	for _, pattern := range patterns {
		check(encoder.Encode(evaluate(pattern, inputs, nil, false)))
	}
	for _, pattern := range []string{
		"(.*)", "(.)(.)?", "(?P<name>f.*)-(?P<x1>.*)", "(?P<name>a)?(b)?.*", "(?P<_>.*)", "(?P<01>.)(.*)", "foo",
		"(f)(o)(o)()(-)(b)(a)(r)()()", "(?P<1a>.*)", "(?P<name>)foo.*",
	} {
		check(encoder.Encode(evaluate(pattern, []string{"", "foo-bar", "foo", "aé", "ab", "$1"}, templates, true)))
	}
	g := grammar{rand.New(rand.NewSource(1))}
	for range 1500 {
		pattern := g.pattern(3)
		var some []string
		for range 12 {
			some = append(some, g.input())
		}
		check(encoder.Encode(evaluate(pattern, some, []string{"$1.$2.$name"}, true)))
	}
}

func tables() {
	accepted := func(names []string) []string {
		var out []string
		for _, name := range names {
			if _, err := regexp.Compile(`\p{` + name + `}`); err == nil {
				out = append(out, name)
			}
		}
		sort.Strings(out)
		return out
	}
	keys := func(m map[string]*unicode.RangeTable) (out []string) {
		for k := range m {
			out = append(out, k)
		}
		return accepted(out)
	}
	var data struct {
		Categories []string             `json:"categories"`
		Aliases    map[string]string    `json:"aliases"`
		Scripts    []string             `json:"scripts"`
		Samples    map[string][][2]rune `json:"samples"`
		Upper      [][2]rune            `json:"upper"`
		Lower      [][2]rune            `json:"lower"`
	}
	data.Categories = keys(unicode.Categories)
	data.Scripts = keys(unicode.Scripts)
	data.Aliases = map[string]string{}
	for name, to := range unicode.CategoryAliases {
		if _, err := regexp.Compile(`\p{` + name + `}`); err == nil {
			data.Aliases[name] = to
		}
	}
	// What every category and script holds, as ranges, surrogates left out.
	data.Samples = map[string][][2]rune{}
	for _, name := range append(append([]string{}, data.Categories...), data.Scripts...) {
		re := regexp.MustCompile(`^\p{` + name + `}$`)
		var ranges [][2]rune
		for r := rune(0); r <= unicode.MaxRune; r++ {
			if r >= 0xD800 && r < 0xE000 || !re.MatchString(string(r)) {
				continue
			}
			if n := len(ranges); n > 0 && ranges[n-1][1] == r-1 {
				ranges[n-1][1] = r
			} else if len(ranges) < 12 {
				ranges = append(ranges, [2]rune{r, r})
			} else {
				break
			}
		}
		data.Samples[name] = ranges
	}
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if r >= 0xD800 && r < 0xE000 {
			continue
		}
		if to := []rune(strings.ToUpper(string(r)))[0]; to != r {
			data.Upper = append(data.Upper, [2]rune{r, to})
		}
		if to := []rune(strings.ToLower(string(r)))[0]; to != r {
			data.Lower = append(data.Lower, [2]rune{r, to})
		}
	}
	file, err := os.Create("unicode.json")
	check(err)
	defer file.Close()
	check(json.NewEncoder(file).Encode(data))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
