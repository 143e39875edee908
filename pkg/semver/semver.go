// Package semver compares versions by their numbers. As text, 1.10.0 would
// come before 1.9.0.
package semver

import "cmp"

// Compare compares two versions such as "1.10.0", number by number: -1, 0 or +1.
// A missing number is 0, so that "" is the oldest version. What follows the
// numbers, as in "1.7.0-rc1+abc", does not count.
func Compare(a, b string) int {
	for a != "" || b != "" {
		var x, y uint64
		x, a = number(a)
		y, b = number(b)
		if c := cmp.Compare(x, y); c != 0 {
			return c
		}
	}
	return 0
}

// AtLeast reports whether version v is min or a later one.
func AtLeast(v, min string) bool { return Compare(v, min) >= 0 }

// number cuts the first number off a version, and the dot that follows it.
func number(s string) (n uint64, rest string) {
	i := 0
	for ; i < len(s) && '0' <= s[i] && s[i] <= '9'; i++ {
		n = n*10 + uint64(s[i]-'0')
	}
	if i == 0 || i == len(s) || s[i] != '.' {
		return n, ""
	}
	return n, s[i+1:]
}
