package main

import (
	"context"
	"sync"
	"time"
)

// D4 and D6 are left out: Go has no pool to hand a call to, a blocking call is made where it is needed.
var timingWorkloads = []workload{
	{"D1", manySleepers, true},
	{"D1.few", thousandSleepers, true},
	{"D2", unusedTimeouts, false},
	{"D3", shortSleep, false},
	{"D5", sleepingCalls, false},
}

// The same naps in every program; and the longest sum of one sleeper's.
func assignNaps(sleepers int) (naps [][3]time.Duration, longest time.Duration) {
	state := uint64(88172645463325252)
	naps = make([][3]time.Duration, sleepers)
	for i := range naps {
		sum := time.Duration(0)
		for j := range naps[i] {
			state ^= state << 13
			state ^= state >> 7
			state ^= state << 17
			naps[i][j] = time.Duration(1+state%1000) * time.Millisecond
			sum += naps[i][j]
		}
		longest = max(longest, sum)
	}
	return naps, longest
}

func sleepCrowd(count int) (over float64, overshoots []time.Duration) {
	naps, ideal := assignNaps(count)
	overshoots = make([]time.Duration, 3*count)
	var group sync.WaitGroup
	start := time.Now()
	for i := range naps {
		group.Go(func() {
			for j, nap := range naps[i] {
				start := time.Now()
				time.Sleep(nap)
				overshoots[3*i+j] = time.Since(start) - nap
			}
		})
	}
	group.Wait()
	return float64(time.Since(start) - ideal), overshoots
}

func manySleepers(bool) []metric {
	cpu := resources(ofProcess).cpu
	over, _ := sleepCrowd(100_000)
	return []metric{{"D1.over", over / 1e6, "ms"}, {"D1.cpu", resources(ofProcess).cpu - cpu, "s"}}
}

func thousandSleepers(bool) []metric {
	_, overshoots := sleepCrowd(1000)
	return []metric{{"D1.p99", quantile(overshoots, 0.99) / 1e6, "ms"}}
}

// A timer that is set and stopped is the cheapest time-out that Go has; a context is the customary one.
func unusedTimeouts(quick bool) []metric {
	count := 10_000_000
	if quick {
		count = 1_000_000
	}
	var lock sync.Mutex
	start := time.Now()
	for range count {
		timer := time.NewTimer(time.Second)
		lock.Lock()
		lock.Unlock()
		timer.Stop()
	}
	withTimer := time.Since(start)
	start = time.Now()
	for range count / 10 {
		_, cancel := context.WithTimeout(context.Background(), time.Second)
		lock.Lock()
		lock.Unlock()
		cancel()
	}
	return []metric{
		{"D2", float64(withTimer) / float64(count), "ns"},
		{"D2.context", float64(time.Since(start)) / float64(count/10), "ns"},
	}
}

func shortSleep(bool) []metric {
	const nap = 100 * time.Microsecond
	errors := make([]time.Duration, 2000)
	for i := range errors {
		start := time.Now()
		time.Sleep(nap)
		errors[i] = time.Since(start) - nap
	}
	return []metric{{"D3.p50", quantile(errors, 0.5) / 1e3, "us"}, {"D3.p99", quantile(errors, 0.99) / 1e3, "us"}}
}

func sleepingCalls(bool) []metric {
	limit := make(chan struct{}, 512)
	var group sync.WaitGroup
	start := time.Now()
	for range 2000 {
		group.Go(func() {
			limit <- struct{}{}
			blockThread(100 * time.Millisecond)
			<-limit
		})
	}
	group.Wait()
	return []metric{{"D5", float64(time.Since(start)) / 1e6, "ms"}}
}
