package bed

import (
	"sync"
	"time"
)

// Burst is one verb for slots 0 to Count-1, Level at a time.
type Burst struct {
	Verb         string
	Level, Count int
}

// Bursted is what a burst cost: the calls that worked, the time for all, and what went wrong.
type Bursted struct {
	Costs  []Cost
	Wall   time.Duration
	Failed []string
}

// Burst carries out a burst.
func (b *Bed) Burst(burst Burst, done *Bursted) error {
	slots := make(chan int, burst.Count)
	for slot := range burst.Count {
		slots <- slot
	}
	close(slots)
	var wg sync.WaitGroup
	var mu sync.Mutex
	begin := time.Now()
	for range burst.Level {
		wg.Go(func() {
			for slot := range slots {
				cost, err := b.call(Ask{burst.Verb, slot}, timed)
				mu.Lock()
				if err != nil {
					done.Failed = append(done.Failed, err.Error())
				} else {
					done.Costs = append(done.Costs, cost)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	done.Wall = time.Since(begin)
	return nil
}
