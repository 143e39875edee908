package plugin

// Version is the suite's. It carries on from the reference's numbering, since
// callers compare it: nerdctl wants "CNI firewall plugin v1.7.1" or later
// before it asks for isolation.
const Version = "1.10.0"

// The versions of the CNI specification, oldest first, that the suite speaks.
var specVersions = []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

const newestSpec = "1.1.0"

// since returns the versions from oldest on; "" is all of them.
func since(oldest string) []string {
	for i, v := range specVersions {
		if v == oldest {
			return specVersions[i:]
		}
	}
	return specVersions
}

// versionOf finds the top-level "cniVersion" of a JSON object. It reads no more
// than it must: VERSION is called for every plugin of every list at each load
// of a runtime's configuration, and a JSON decoder would be a tenth of its cost.
func versionOf(b []byte) string {
	depth, key := 0, ""
	for i := 0; i < len(b); i++ {
		switch c := b[i]; c {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			key = ""
		case '"':
			end := stringEnd(b, i)
			if end < 0 {
				return ""
			}
			if depth == 1 && key == "cniVersion" {
				return string(b[i+1 : end])
			}
			if depth == 1 && key == "" {
				key = string(b[i+1 : end])
			}
			i = end
		}
	}
	return ""
}

// stringEnd returns the index of the quote that ends the string starting at i,
// or -1.
func stringEnd(b []byte, i int) int {
	for j := i + 1; j < len(b); j++ {
		switch b[j] {
		case '\\':
			j++
		case '"':
			return j
		}
	}
	return -1
}
