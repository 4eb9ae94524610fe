package main

import (
	"runtime"
	"sync"
	"time"
)

var memoryWorkloads = []workload{
	{"B1", millionParked, true},
	{"B2s", millionSleeping, true},
}

func many(quick bool) int {
	if quick {
		return 200_000
	}
	return 1_000_000
}

// The collector is asked to run before memory is read only where nothing is to be left: it would not otherwise, as
// nothing allocates any more.
func millionParked(quick bool) []metric {
	tasks := many(quick)
	release := make(chan struct{})
	var arrived, ended sync.WaitGroup
	arrived.Add(tasks)
	ended.Add(tasks)
	before := residentBytes()
	start := time.Now()
	for range tasks {
		go func() {
			arrived.Done()
			<-release
			ended.Done()
		}()
	}
	arrived.Wait()
	spawn := time.Since(start)
	parked := residentBytes()
	start = time.Now()
	close(release)
	ended.Wait()
	end := time.Since(start)
	runtime.GC()
	time.Sleep(5 * time.Second)
	return []metric{
		{"B1.bytes", (parked - before) / float64(tasks), "B"},
		{"B1.spawn", float64(spawn) / 1e6, "ms"},
		{"B1.end", float64(end) / 1e6, "ms"},
		{"B3", residentBytes() * 100 / parked, "%"},
	}
}

func millionSleeping(quick bool) []metric {
	tasks, nap := many(quick), 10*time.Second
	if quick {
		nap = 2 * time.Second
	}
	cpu, before := resources(ofProcess).cpu, residentBytes()
	var group sync.WaitGroup
	for range tasks {
		group.Go(func() { time.Sleep(nap) })
	}
	time.Sleep(nap / 2)
	parked := residentBytes()
	group.Wait()
	return []metric{
		{"B2s.bytes", (parked - before) / float64(tasks), "B"},
		{"B2s.cpu", resources(ofProcess).cpu - cpu, "s"},
	}
}
