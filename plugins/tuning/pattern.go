package tuning

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// pattern is a compiled regular expression in the syntax of Go's package regexp,
// which costs every start of every plugin a twentieth of its time to link. What
// it lacks of that (flags, named classes, Unicode classes, word boundaries,
// numbers above 100 in braces) does not compile; what compiles means the same.
type pattern []instruction

type instruction struct {
	op   opcode
	set  set // of consume
	x, y int // where to go on
}

type opcode int

const (
	consume opcode = iota // one character of set
	fork                  // to x and y
	atBegin
	atEnd
	accept
)

// set is a set of characters: pairs of first and last.
type set struct {
	ranges  []rune
	negated bool
}

func (s set) has(r rune) bool {
	for i := 0; i < len(s.ranges); i += 2 {
		if s.ranges[i] <= r && r <= s.ranges[i+1] {
			return !s.negated
		}
	}
	return s.negated
}

// matches reports whether the pattern occurs anywhere in text.
func (p pattern) matches(text string) bool {
	chars := []rune(text)
	now, next := p.states(), p.states()
	for at := 0; ; at++ {
		now.follow(0, at == 0, at == len(chars))
		if now.accepted {
			return true
		}
		if at == len(chars) {
			return false
		}
		for _, s := range now.list {
			if p[s].op == consume && p[s].set.has(chars[at]) {
				next.follow(p[s].x, false, at+1 == len(chars))
			}
		}
		now.clear()
		now, next = next, now
	}
}

// states are those in which the matching of a pattern may be.
type states struct {
	of       pattern
	list     []int
	in       []bool // by state: it is in list
	accepted bool
}

func (p pattern) states() *states { return &states{of: p, in: make([]bool, len(p))} }

func (s *states) clear() {
	for _, i := range s.list {
		s.in[i] = false
	}
	s.list = s.list[:0]
}

// follow adds a state, and all that can be reached from it without consuming.
func (s *states) follow(i int, begin, end bool) {
	if s.in[i] {
		return
	}
	s.in[i], s.list = true, append(s.list, i)
	switch in := s.of[i]; {
	case in.op == accept:
		s.accepted = true
	case in.op == fork:
		s.follow(in.x, begin, end)
		s.follow(in.y, begin, end)
	case in.op == atBegin && begin, in.op == atEnd && end:
		s.follow(in.x, begin, end)
	}
}

const (
	longestPattern = 1000
	largestPattern = 2000 // instructions
	mostRepeats    = 100
)

// compile reads a pattern.
func compile(text string) (pattern, error) {
	if len(text) > longestPattern || !utf8.ValidString(text) {
		return nil, fmt.Errorf("pattern %.50q: too long, or no text", text)
	}
	r := reader{rest: text}
	n, err := r.alternatives()
	if err == nil && r.rest != "" {
		err = errors.New("unexpected )")
	}
	var p pattern
	if err == nil {
		p = n.emit(nil)
		p = append(p, instruction{op: accept})
		if len(p) > largestPattern {
			err = errors.New("too large")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", text, err)
	}
	return p, nil
}

// node is a part of a pattern. emit appends its instructions; they go on behind
// the last of them.
type node interface {
	emit(p pattern) pattern
}

type (
	single   instruction
	sequence []node
	either   []node
	repeated struct {
		of       node
		min, max int // max < 0: without bound
	}
)

func (n single) emit(p pattern) pattern {
	n.x = len(p) + 1
	return append(p, instruction(n))
}

func (n sequence) emit(p pattern) pattern {
	for _, m := range n {
		if len(p) <= largestPattern {
			p = m.emit(p)
		}
	}
	return p
}

func (n either) emit(p pattern) pattern {
	var ends []int
	for i, m := range n {
		if i == len(n)-1 {
			p = m.emit(p)
			break
		}
		start := len(p)
		p = m.emit(append(p, instruction{op: fork, x: start + 1}))
		ends = append(ends, len(p))
		p = append(p, instruction{op: fork})
		p[start].y = len(p)
	}
	for _, e := range ends {
		p[e].x, p[e].y = len(p), len(p)
	}
	return p
}

func (n repeated) emit(p pattern) pattern {
	for range n.min {
		start := len(p)
		if p = (sequence{n.of}).emit(p); len(p) == start {
			break // nothing, however often; or too large already
		}
	}
	if n.max < 0 {
		start := len(p)
		p = n.of.emit(append(p, instruction{op: fork, x: start + 1}))
		p = append(p, instruction{op: fork, x: start, y: start})
		p[start].y = len(p)
		return p
	}
	var skips []int
	for range n.max - n.min {
		skips = append(skips, len(p))
		p = append(p, instruction{op: fork, x: len(p) + 1})
		p = sequence{n.of}.emit(p)
	}
	for _, s := range skips {
		p[s].y = len(p)
	}
	return p
}

// reader takes a pattern apart.
type reader struct{ rest string }

func (r *reader) next() rune {
	c, n := utf8.DecodeRuneInString(r.rest)
	r.rest = r.rest[n:]
	return c
}

func (r *reader) take(prefix string) (ok bool) {
	r.rest, ok = strings.CutPrefix(r.rest, prefix)
	return ok
}

func (r *reader) alternatives() (node, error) {
	var all either
	for {
		n, err := r.sequence()
		if err != nil {
			return nil, err
		}
		all = append(all, n)
		if !r.take("|") {
			return all, nil
		}
	}
}

func (r *reader) sequence() (node, error) {
	all := sequence{}
	for r.rest != "" && r.rest[0] != '|' && r.rest[0] != ')' {
		n, err := r.atom()
		if err != nil {
			return nil, err
		}
		if n, err = r.repeats(n); err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// repeats reads what may follow an atom: one operator. Whether it is greedy
// makes no difference to whether there is a match.
func (r *reader) repeats(n node) (node, error) {
	rep, ok, err := r.operator()
	if err != nil || !ok {
		return n, err
	}
	r.take("?")
	if _, again, err := r.operator(); again || err != nil {
		return nil, errors.New("nested repetition operator")
	}
	rep.of = n
	return rep, nil
}

func (r *reader) operator() (rep repeated, ok bool, err error) {
	switch {
	case r.take("*"):
		return repeated{max: -1}, true, nil
	case r.take("+"):
		return repeated{min: 1, max: -1}, true, nil
	case r.take("?"):
		return repeated{max: 1}, true, nil
	case strings.HasPrefix(r.rest, "{"):
		return r.braces()
	}
	return rep, false, nil
}

// braces reads {n}, {n,} or {n,m}. Anything else in braces is text.
func (r *reader) braces() (rep repeated, ok bool, err error) {
	body, rest, found := strings.Cut(r.rest[1:], "}")
	low, high, two := strings.Cut(body, ",")
	rep.min, ok = number(low)
	rep.max = rep.min
	switch {
	case two && high == "":
		rep.max = -1
	case two:
		var valid bool
		rep.max, valid = number(high)
		ok = ok && valid
	}
	if !found || !ok {
		return rep, false, nil
	}
	if rep.min > mostRepeats || rep.max > mostRepeats || rep.max >= 0 && rep.min > rep.max {
		return rep, false, errors.New("repeat count out of range")
	}
	r.rest = rest
	return rep, true, nil
}

// number reads digits without a leading zero. One out of range is a thousand.
func number(s string) (n int, ok bool) {
	if s == "" || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(n*10+int(c-'0'), 1000)
	}
	return n, true
}

func (r *reader) atom() (node, error) {
	if _, ok, err := r.operator(); ok || err != nil {
		return nil, errors.New("nothing to repeat")
	}
	switch c := r.next(); c {
	case '(':
		return r.group()
	case '[':
		s, err := r.class()
		return single{op: consume, set: s}, err
	case '.':
		return single{op: consume, set: set{ranges: []rune{'\n', '\n'}, negated: true}}, nil
	case '^':
		return single{op: atBegin}, nil
	case '$':
		return single{op: atEnd}, nil
	case '\\':
		if r.take("A") {
			return single{op: atBegin}, nil
		}
		if r.take("z") {
			return single{op: atEnd}, nil
		}
		s, err := r.escape()
		return single{op: consume, set: s}, err
	default:
		return single{op: consume, set: set{ranges: []rune{c, c}}}, nil
	}
}

func (r *reader) group() (node, error) {
	if !r.take("?:") && strings.HasPrefix(r.rest, "?") {
		return nil, errors.New("flags and names of groups are not supported")
	}
	n, err := r.alternatives()
	if err == nil && !r.take(")") {
		err = errors.New("missing )")
	}
	return n, err
}

// escape reads what follows a backslash.
func (r *reader) escape() (set, error) {
	if r.rest == "" {
		return set{}, errors.New("backslash at the end")
	}
	c := r.next()
	if i := strings.IndexRune("dDwWsS", c); i >= 0 {
		classes := [][]rune{{'0', '9'}, {'0', '9', 'A', 'Z', '_', '_', 'a', 'z'}, {'\t', '\n', '\f', '\r', ' ', ' '}}
		return set{ranges: classes[i/2], negated: i%2 == 1}, nil
	}
	if i := strings.IndexRune("tnrfva", c); i >= 0 {
		c = rune("\t\n\r\f\v\a"[i])
		return set{ranges: []rune{c, c}}, nil
	}
	word := '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
	if word || c >= utf8.RuneSelf {
		return set{}, fmt.Errorf("\\%c is not supported", c)
	}
	return set{ranges: []rune{c, c}}, nil
}

// class reads what follows an opening bracket.
func (r *reader) class() (set, error) {
	all := set{negated: r.take("^")}
	for first := true; first || !strings.HasPrefix(r.rest, "]"); first = false {
		if strings.HasPrefix(r.rest, "[:") {
			return all, errors.New("named classes are not supported")
		}
		low, err := r.member()
		if err != nil {
			return all, err
		}
		if !strings.HasPrefix(r.rest, "-") || strings.HasPrefix(r.rest, "-]") {
			all.ranges = append(all.ranges, low.plain()...)
			continue
		}
		r.take("-")
		high, err := r.member()
		if err != nil {
			return all, err
		}
		if !low.isChar() || !high.isChar() || low.ranges[0] > high.ranges[0] {
			return all, errors.New("invalid range of a class")
		}
		all.ranges = append(all.ranges, low.ranges[0], high.ranges[0])
	}
	r.take("]")
	return all, nil
}

// member reads a character of a class, or a class of its own.
func (r *reader) member() (set, error) {
	if r.rest == "" {
		return set{}, errors.New("missing ]")
	}
	c := r.next()
	if c == '\\' {
		return r.escape()
	}
	return set{ranges: []rune{c, c}}, nil
}

func (s set) isChar() bool { return !s.negated && len(s.ranges) == 2 && s.ranges[0] == s.ranges[1] }

// plain returns the ranges of a set, which may be the complement of others in
// ascending order.
func (s set) plain() []rune {
	if !s.negated {
		return s.ranges
	}
	var all []rune
	from := rune(0)
	for i := 0; i < len(s.ranges); i += 2 {
		all = append(all, from, s.ranges[i]-1)
		from = s.ranges[i+1] + 1
	}
	return append(all, from, utf8.MaxRune)
}
