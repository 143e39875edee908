package tuning

import (
	"regexp"
	"strings"
	"testing"
)

var patterns = []string{
	"", "a", "^net.ipv4.conf.IFNAME.arp_filter$", `^net\.ipv4\.(tcp|udp)_[a-z_]+$`, "a|b|", "(a|)*b", "x*", "x+y?", "a{2}", "a{2,}", "a{1,3}b", "a{,2}", "a{x",
	"[a-c]", "[^a-c.]", "[]a]", "[^]a]", "[a-]", "[-a]", `[\d_]`, `[\D]x`, `[^\W]`, `\w+\.\s\S`, `\A\z`, "^*a", "$", "a$b", "(?:ab)+c", "((a))", "a*?b", "[a-b-c]", `[\]\\]`, ".*", "(a*)*", "(a|b){2,4}$", "é+",
	"(", ")", "*", "a**", "a{3,2}", "a{2}{3}", "[", "[b-a]", `\`, "(?i)a", `\p{L}`, "[[:alpha:]]", `\bx`, "a{101}", "|*", "(|a)+?x", `\t\n`, "a{0}", "a{0,0}b", "(^a|b$)", "((((((){99}){99}){99}){99}){99}){99}",
}

var texts = []string{"", "a", "b", "ab", "aab", "aaab", "abc", "xyz", "x", "net.ipv4.tcp_rmem", "net.ipv4.conf.IFNAME.arp_filter", "net/ipv4/conf/IFNAME/arp_filter", "]", "-", "_1", "a{x", "a{,2}", "é", "a\nb", "\\", "c.", " "}

// agree requires that what compiles here compiles there, and means the same.
func agree(t *testing.T, expr string, texts ...string) {
	t.Helper()
	ours, err := compile(expr)
	if err != nil {
		return
	}
	theirs, err := regexp.Compile(expr)
	if err != nil {
		if !strings.Contains(err.Error(), "invalid repeat count") { // of repeats within repeats
			t.Errorf("%q compiles, though it is wrong: %v", expr, err)
		}
		return
	}
	for _, text := range texts {
		if got, want := ours.matches(text), theirs.MatchString(text); got != want {
			t.Errorf("%q in %q: %v, want %v", expr, text, got, want)
		}
	}
}

func TestPatternsMeanWhatRegexpsMean(t *testing.T) {
	for _, p := range patterns {
		agree(t, p, texts...)
	}
}

// TestWhatAllowlistsUse must compile.
func TestWhatAllowlistsUse(t *testing.T) {
	for _, p := range []string{
		"^net.ipv4.conf.IFNAME.accept_redirects$", `^net\.ipv4\.conf\.IFNAME\.(accept|send)_redirects$`, `net\.ipv6\.conf\.(all|default|IFNAME)\..*`,
		`^net\.core\.[a-z_]+$`, `^net\.ipv4\.tcp_(keepalive_(time|intvl|probes)|syncookies)$`, "^net[./]ipv4[./]ip_local_port_range$", `^net\.ipv4\.neigh\.[^.]+\.(?:gc_thresh\d|locktime)$`,
	} {
		if _, err := compile(p); err != nil {
			t.Error(err)
		}
	}
}

func TestPatternsThatDoNotCompile(t *testing.T) {
	for _, p := range []string{"(", ")", "*", "a**", "a{3,2}", "[", "[b-a]", `\`, "(?i)a", `\p{L}`, "[[:alpha:]]", `\bx`, "a{101}", strings.Repeat("a", 1001), "((a{100}){100}){100}", "\xff"} {
		if _, err := compile(p); err == nil {
			t.Errorf("%.30q compiles", p)
		}
	}
}

func FuzzPattern(f *testing.F) {
	for i, p := range patterns {
		f.Add(p, texts[i%len(texts)])
	}
	f.Fuzz(func(t *testing.T, expr, text string) { agree(t, expr, text) })
}
