package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/netcleat/netcleat/test/bench/bed"
	"github.com/netcleat/netcleat/test/bench/cases"
)

const (
	minRounds   = 5
	heavy       = 5 * time.Millisecond
	pause       = 15 * time.Millisecond
	burstRounds = 3
	connectWarm = 500
	connectRow  = 2000
	connectRows = 5
)

// rest pauses after a heavy call. What the kernel puts off until then (RCU callbacks, namespace and conntrack work) would
// make the next contender 0.5 to 0.9 ms slower, and there is no event that tells its end.
func rest(took time.Duration) {
	if took > heavy {
		time.Sleep(pause) //nolint:forbidigo // the kernel's deferred work has no event to wait for
	}
}

// shuffled returns the runners in the order of a turn. It differs from turn to turn, because a call is slower after a
// heavy one than after a light one, and in a fixed order the same contender would always have the light one before it.
// The seed is fixed.
func (s *session) shuffled(runners []*runner) []*runner {
	order := slices.Clone(runners)
	s.rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// rounds lets the contenders take turns: each verb by all, then the next verb.
func (s *session) rounds(c cases.Case, runners []*runner) {
	end := time.Now().Add(s.options.budget)
	for round := range s.options.rounds {
		if round >= minRounds && time.Now().After(end) {
			return
		}
		for _, verb := range c.Verbs {
			for _, r := range s.shuffled(runners) {
				if !r.takesPart(c, verb) {
					continue
				}
				cost, err := r.bed.Call(bed.Ask{Verb: verb})
				if err != nil {
					s.fail(c, r, fmt.Errorf("round %d: %w", round, err))
					continue
				}
				series := r.at(c, verb, 0)
				series.WallMS = append(series.WallMS, ms(cost.Wall))
				series.CPUMS = append(series.CPUMS, ms(cost.CPU))
				rest(cost.Wall)
			}
		}
	}
}

// ms returns milliseconds.
func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// burstSize returns how many calls make a burst: enough for a rate, few enough for the slowest contender.
func burstSize(level int) int { return min(max(8*level, 16), 64) }

// bursts lets the contenders take turns with whole bursts.
func (s *session) bursts(c cases.Case, runners []*runner) {
	for _, level := range c.Levels {
		for range burstRounds {
			for _, r := range s.shuffled(runners) {
				for _, verb := range c.Verbs {
					if err := s.burst(c, r, verb, level); err != nil {
						s.fail(c, r, err)
					}
				}
			}
		}
	}
}

// burst runs one burst. Calls that fail count neither as done nor in the times.
func (s *session) burst(c cases.Case, r *runner, verb string, level int) error {
	if r.failed {
		return nil
	}
	done, err := r.bed.Burst(bed.Burst{Verb: verb, Level: level, Count: burstSize(level)})
	if err != nil {
		return err
	}
	series := r.at(c, verb, level)
	for _, cost := range done.Costs {
		series.WallMS = append(series.WallMS, ms(cost.Wall))
		series.CPUMS = append(series.CPUMS, ms(cost.CPU))
	}
	series.PerSecond = append(series.PerSecond, float64(len(done.Costs))/done.Wall.Seconds())
	if n := len(done.Failed); n > 0 {
		series.Failed += n
		s.note(c, r, fmt.Sprintf("%d of %d %s failed at %d at a time, the first: %s", n, burstSize(level), verb, level, done.Failed[0]))
	}
	rest(done.Wall)
	return nil
}

// connections lets the contenders take turns with rows of connections.
func (s *session) connections(c cases.Case, runners []*runner) {
	for row := range connectRows + 1 {
		for _, r := range s.shuffled(runners) {
			if r.failed {
				continue
			}
			n := connectRow
			if row == 0 {
				n = connectWarm
			}
			rate, err := r.bed.Connect(n)
			if err != nil {
				s.fail(c, r, err)
				continue
			}
			if series := r.at(c, c.Verbs[0], 0); row > 0 {
				series.PerSecond = append(series.PerSecond, rate)
			}
		}
	}
}
