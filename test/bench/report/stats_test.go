package report

import (
	"math"
	"testing"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		samples []float64
		q, want float64
	}{
		{[]float64{3}, 0.5, 3},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{5, 1, 3}, 0.5, 3},
		{[]float64{1, 2, 3, 4, 5}, 0, 1},
		{[]float64{1, 2, 3, 4, 5}, 1, 5},
		{[]float64{0, 10}, 0.95, 9.5},
	} {
		if got := Quantile(c.samples, c.q); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("Quantile(%v, %v): want %v, got %v", c.samples, c.q, c.want, got)
		}
	}
	if got := Median(nil); !math.IsNaN(got) {
		t.Errorf("Median of nothing: want NaN, got %v", got)
	}
}

func TestQuantileLeavesSamplesAlone(t *testing.T) {
	samples := []float64{3, 1, 2}
	Median(samples)
	if samples[0] != 3 {
		t.Errorf("want the order kept, got %v", samples)
	}
}

func TestSpread(t *testing.T) {
	if got := Spread([]float64{8, 9, 10, 11, 12}); math.Abs(got-0.1) > 1e-9 {
		t.Errorf("want 0.1, got %v", got)
	}
}

func TestRatio(t *testing.T) {
	a, b := []float64{9, 10, 11, 10, 10}, []float64{2, 2.1, 1.9, 2, 2}
	r := NewRatio(a, b)
	if r.Value != 5 || r.Low > 5 || r.High < 5 || r.Low < 4.2 || r.High > 5.8 {
		t.Errorf("want 5 inside of a narrow interval, got %v", r)
	}
	if again := NewRatio(a, b); again != r {
		t.Errorf("want the same interval for the same samples, got %v and %v", r, again)
	}
}

func TestDigits(t *testing.T) {
	for v, want := range map[float64]string{0.5: "0.50", 1.234: "1.23", 12.34: "12.3", 123.4: "123", math.Inf(1): "–"} {
		if got := digits(v); got != want {
			t.Errorf("digits(%v): want %s, got %s", v, want, got)
		}
	}
}
