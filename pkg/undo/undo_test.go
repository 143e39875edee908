package undo

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

var errFirst = errors.New("first")

// work pushes three steps and ends as told. Steps in broken fail, those in
// panics panic.
func work(end func() error, log *string, broken, panics string) (err error) {
	var steps Stack
	defer steps.OnError(&err)
	for _, s := range []string{"a", "b", "c"} {
		steps.Push(s, func() error {
			*log += s
			if strings.Contains(panics, s) {
				panic("in " + s)
			}
			if strings.Contains(broken, s) {
				return fmt.Errorf("%s is stuck", s)
			}
			return nil
		})
	}
	return end()
}

func TestOnError(t *testing.T) {
	fails, panics := func() error { return errFirst }, func() error { panic("oh") }
	for name, c := range map[string]struct {
		end            func() error
		broken, panics string
		log, err       string
		incomplete     bool
	}{
		"success":     {end: func() error { return nil }},
		"failure":     {end: fails, log: "cba", err: "first"},
		"panic":       {end: panics, log: "cba", err: "panic: oh"},
		"stuck":       {end: fails, broken: "b", log: "cba", err: "first\nundo: b: b is stuck", incomplete: true},
		"both stuck":  {end: panics, broken: "ac", log: "cba", err: "undo: a: a is stuck", incomplete: true},
		"undo panics": {end: fails, panics: "c", log: "cba", err: "undo: c: panic: in c", incomplete: true},
	} {
		t.Run(name, func(t *testing.T) {
			log := ""
			err := work(c.end, &log, c.broken, c.panics)
			if log != c.log {
				t.Errorf("took back %q, want %q", log, c.log)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if Incomplete(err) != c.incomplete || Incomplete(fmt.Errorf("wrapped: %w", err)) != c.incomplete {
				t.Errorf("incomplete %v", Incomplete(err))
			}
		})
	}
}
