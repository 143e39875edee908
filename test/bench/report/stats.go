package report

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Quantile returns the value below which a part q of the samples lies, by linear interpolation, and NaN without samples.
func Quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	s := slices.Clone(samples)
	slices.Sort(s)
	at := q * float64(len(s)-1)
	low := int(at)
	high := min(low+1, len(s)-1)
	return s[low] + (s[high]-s[low])*(at-float64(low))
}

// Median returns the middle of the samples.
func Median(samples []float64) float64 { return Quantile(samples, 0.5) }

// Spread returns half of the interquartile range as a part of the median: the noise of one series.
func Spread(samples []float64) float64 {
	return (Quantile(samples, 0.75) - Quantile(samples, 0.25)) / 2 / Median(samples)
}

// Ratio is a ratio of two medians with its 95 % interval.
type Ratio struct{ Value, Low, High float64 }

// resamples is how often NewRatio draws: enough for two digits of the interval.
const resamples = 500

// NewRatio returns the ratio of the medians of a and b. Its interval comes from a bootstrap with a fixed seed, so the same
// samples have the same interval.
func NewRatio(a, b []float64) Ratio {
	rng := rand.New(rand.NewPCG(1, 2))
	ratios := make([]float64, resamples)
	for i := range ratios {
		ratios[i] = Median(draw(rng, a)) / Median(draw(rng, b))
	}
	return Ratio{Median(a) / Median(b), Quantile(ratios, 0.025), Quantile(ratios, 0.975)}
}

// draw returns as many samples as there are, drawn with replacement.
func draw(rng *rand.Rand, from []float64) []float64 {
	out := make([]float64, len(from))
	for i := range out {
		out[i] = from[rng.IntN(len(from))]
	}
	return out
}

// String writes a ratio with its interval.
func (r Ratio) String() string {
	return fmt.Sprintf("%s (%s–%s)", digits(r.Value), digits(r.Low), digits(r.High))
}

// digits writes a number with three significant digits and no exponent.
func digits(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	switch a := math.Abs(v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
