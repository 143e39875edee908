package look

import (
	"errors"
	"sync"
	"testing"
)

// Who shares a look reads each thing once, errors included; without one each reads.
func TestOnce(t *testing.T) {
	refused := errors.New("refused")
	var mu sync.Mutex
	reads := 0
	read := func() (int, error) {
		mu.Lock()
		defer mu.Unlock()
		reads++
		return reads, refused
	}
	if Of(t.Context()) != nil {
		t.Fatal("a context shares a look by itself")
	}
	l := Of(Share(t.Context()))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if v, err := Once(l, "table", read); v != 1 || !errors.Is(err, refused) {
				t.Errorf("want 1 and the error, got %d %v", v, err)
			}
		})
	}
	wg.Wait()
	if v, _ := Once(l, "other table", read); v != 2 {
		t.Errorf("of another table: want 2, got %d", v)
	}
	if v, _ := Once(nil, "table", read); v != 3 {
		t.Errorf("without a look: want 3, got %d", v)
	}
}
