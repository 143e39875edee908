//go:build linux && (amd64 || arm64)

package main

import (
	"bytes"
	"testing"
)

func TestList(t *testing.T) {
	t.Setenv("ADDRESSES", "0a160005/16,fd000000000000000000000000000006/64")
	got := list("ADDRESSES")
	if len(got) != 2 || !bytes.Equal(got[0].addr, []byte{10, 22, 0, 5}) || got[0].bits != 16 ||
		len(got[1].addr) != 16 || got[1].addr[15] != 6 || got[1].bits != 64 {
		t.Errorf("want 10.22.0.5/16 and fd00::6/64, got %v", got)
	}
}

func TestMasked(t *testing.T) {
	for _, c := range []struct {
		bits byte
		want addr
	}{{0, addr{0, 0, 0, 0}}, {12, addr{10, 16, 0, 0}}, {16, addr{10, 22, 0, 0}}, {31, addr{10, 22, 255, 4}}, {32, addr{10, 22, 255, 5}}} {
		if got := (prefix{addr{10, 22, 255, 5}, c.bits}).masked().addr; !bytes.Equal(c.want, got) {
			t.Errorf("/%d: want %v, got %v", c.bits, c.want, got)
		}
	}
}

func TestAnswers(t *testing.T) {
	answer := func(seq byte, errno int32) []byte {
		var s socket
		s.request(2, 0, word(uint32(-errno))...)
		s.finish()
		s.buf[8] = seq
		return s.buf
	}
	s := socket{seq: 2, mayExist: 1 << 1}
	if done, err := s.answers(append(answer(1, 17), answer(2, 0)...)); !done || err != nil {
		t.Errorf("an address that exists: want success, got %v, %v", done, err)
	}
	if _, err := s.answers(answer(2, 17)); err == nil {
		t.Error("a link that exists: want an error")
	}
	if done, err := s.answers(nil); done || err != nil {
		t.Errorf("no answer: want to wait, got %v, %v", done, err)
	}
}
