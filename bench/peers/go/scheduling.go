package main

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

var schedulingWorkloads = []workload{
	{"A1", yieldAlone, false},
	{"A2", yieldAmong1000, false},
	{"A3", yieldMany, false},
	{"A4", spawnAwait, false},
	{"A5", spawnMany, false},
	{"A6", chained, false},
	{"A7", pingPong, false},
	{"A8", skynet, true},
	{"A8.yield", skynetYielding, true},
	{"A8.chan", skynetChannels, true},
	{"A9", fib30, false},
	{"A11", fromOutside, false},
	{"A12", wakeLatency, false},
	{"A13", idle, true},
}

func yieldAlone(quick bool) []metric {
	count := 10_000_000
	if quick {
		count = 2_000_000
	}
	start := time.Now()
	for range count {
		runtime.Gosched()
	}
	return []metric{{"A1", float64(time.Since(start)) / float64(count), "ns"}}
}

func yielders(tasks, yields int) float64 {
	start := time.Now()
	var group sync.WaitGroup
	for range tasks {
		group.Go(func() {
			for range yields {
				runtime.Gosched()
			}
		})
	}
	group.Wait()
	return float64(time.Since(start))
}

func yieldAmong1000(quick bool) []metric {
	yields := 10_000
	if quick {
		yields = 1000
	}
	return []metric{{"A2", yielders(1000, yields) / float64(1000*yields), "ns"}}
}

func yieldMany(bool) []metric {
	return []metric{{"A3", yielders(200, 1000) / 1e3, "us"}}
}

// Awaiting is a WaitGroup: what a Go programmer takes, and faster than a channel a goroutine.
func spawnAwait(quick bool) []metric {
	rounds := 1000
	if quick {
		rounds = 300
	}
	var results [1000]int
	sum := 0
	start := time.Now()
	for range rounds {
		var group sync.WaitGroup
		group.Add(len(results))
		for i := range results {
			go func() {
				results[i] = 1
				group.Done()
			}()
		}
		group.Wait()
		for i := range results {
			sum += results[i]
			results[i] = 0
		}
	}
	elapsed := time.Since(start)
	expect(sum == rounds*len(results))
	return []metric{{"A4", float64(elapsed) / float64(sum), "ns"}}
}

const rounds = 50

func spawnMany(bool) []metric {
	done := make(chan struct{}, 1)
	var left atomic.Int64
	start := time.Now()
	for range rounds {
		left.Store(10_000)
		for range 10_000 {
			go func() {
				if left.Add(-1) == 0 {
					done <- struct{}{}
				}
			}()
		}
		<-done
	}
	return []metric{{"A5", float64(time.Since(start)) / rounds / 1e3, "us"}}
}

func link(done chan<- struct{}, left int) {
	if left == 0 {
		done <- struct{}{}
		return
	}
	go link(done, left-1)
}

func chained(bool) []metric {
	done := make(chan struct{}, 1)
	start := time.Now()
	for range rounds {
		go link(done, 999)
		<-done
	}
	return []metric{{"A6", float64(time.Since(start)) / rounds / 1e3, "us"}}
}

func pingPong(bool) []metric {
	done := make(chan struct{}, 1)
	var left atomic.Int64
	start := time.Now()
	for range rounds {
		left.Store(1000)
		for range 1000 {
			go func() {
				there, back := make(chan int, 1), make(chan int, 1)
				go func() { back <- <-there }()
				there <- 1
				expect(<-back == 1)
				if left.Add(-1) == 0 {
					done <- struct{}{}
				}
			}()
		}
		<-done
	}
	return []metric{{"A7", float64(time.Since(start)) / rounds / 1e3, "us"}}
}

// ---- A8: skynet ----

const (
	leaves = 1_000_000
	ways   = 10
)

func node(first, count int64, sum *int64, group *sync.WaitGroup) {
	defer group.Done()
	if count == 1 {
		*sum = first
		return
	}
	var parts [ways]int64
	var children sync.WaitGroup
	children.Add(ways)
	for i := range int64(ways) {
		go node(first+i*count/ways, count/ways, &parts[i], &children)
	}
	children.Wait()
	for _, part := range parts {
		*sum += part
	}
}

func yieldingNode(first, count int64, sum *int64, group *sync.WaitGroup) {
	defer group.Done()
	runtime.Gosched()
	if count == 1 {
		*sum = first
		return
	}
	var parts [ways]int64
	var children sync.WaitGroup
	children.Add(ways)
	for i := range int64(ways) {
		go yieldingNode(first+i*count/ways, count/ways, &parts[i], &children)
	}
	children.Wait()
	for _, part := range parts {
		*sum += part
	}
}

func channelNode(out chan<- int64, first, count int64) {
	if count == 1 {
		out <- first
		return
	}
	parts := make(chan int64, ways)
	for i := range int64(ways) {
		go channelNode(parts, first+i*count/ways, count/ways)
	}
	sum := int64(0)
	for range ways {
		sum += <-parts
	}
	out <- sum
}

func timeSkynet(key string, root func() int64) []metric {
	start := time.Now()
	sum := root()
	elapsed := time.Since(start)
	expect(sum == leaves*(leaves-1)/2)
	return []metric{{key, float64(elapsed) / 1e6, "ms"}}
}

func skynet(bool) []metric {
	return timeSkynet("A8", func() (sum int64) {
		var group sync.WaitGroup
		group.Add(1)
		go node(0, leaves, &sum, &group)
		group.Wait()
		return sum
	})
}

func skynetYielding(bool) []metric {
	return timeSkynet("A8.yield", func() (sum int64) {
		var group sync.WaitGroup
		group.Add(1)
		go yieldingNode(0, leaves, &sum, &group)
		group.Wait()
		return sum
	})
}

func skynetChannels(bool) []metric {
	return timeSkynet("A8.chan", func() int64 {
		out := make(chan int64, 1)
		go channelNode(out, 0, leaves)
		return <-out
	})
}

func fib(n int) int {
	if n < 2 {
		return n
	}
	var left int
	var group sync.WaitGroup
	group.Add(1)
	go func() {
		left = fib(n - 1)
		group.Done()
	}()
	right := fib(n - 2)
	group.Wait()
	return left + right
}

func fib30(bool) []metric {
	start := time.Now()
	result := fib(30)
	elapsed := time.Since(start)
	expect(result == 832_040)
	return []metric{{"A9", float64(elapsed) / 1e6, "ms"}}
}

// ---- A11 … A13: from outside, and idle. Go has no threads that are not its own: the nearest are goroutines that
// are locked to a thread, and that block in the kernel. ----

func fromOutside(bool) []metric {
	const tasks = 12_800
	var metrics []metric
	for _, threads := range []int{1, 2, 4, 8} {
		var left atomic.Int64
		left.Store(tasks)
		var ready, done sync.WaitGroup
		ready.Add(threads)
		starts, ends := make([]time.Time, threads), make([]time.Time, threads)
		for i := range threads {
			done.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				ready.Done()
				ready.Wait()
				starts[i] = time.Now()
				for range tasks / threads {
					go left.Add(-1)
				}
				ends[i] = time.Now()
			})
		}
		done.Wait()
		start, end := starts[0], ends[0]
		for i := range threads {
			if starts[i].Before(start) {
				start = starts[i]
			}
			if ends[i].After(end) {
				end = ends[i]
			}
		}
		for left.Load() > 0 {
			time.Sleep(time.Millisecond)
		}
		metrics = append(metrics, metric{fmt.Sprintf("A11.%d", threads), float64(end.Sub(start)) / tasks, "ns"})
	}
	return metrics
}

func wakeLatency(quick bool) []metric {
	count := 3000
	if quick {
		count = 500
	}
	latencies := make([]time.Duration, count)
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var group sync.WaitGroup
		for i := range count {
			blockThread(time.Millisecond)
			sent := time.Now()
			group.Go(func() { latencies[i] = time.Since(sent) })
		}
		group.Wait()
		close(done)
	}()
	<-done
	return []metric{
		{"A12.p50", quantile(latencies, 0.5) / 1e3, "us"},
		{"A12.p99", quantile(latencies, 0.99) / 1e3, "us"},
	}
}

func idle(quick bool) []metric {
	long := 10 * time.Second
	if quick {
		long = 2 * time.Second
	}
	release := make(chan struct{})
	var group sync.WaitGroup
	for range 10_000 {
		group.Go(func() { <-release })
	}
	runtime.GC()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	blockThread(500 * time.Millisecond)
	before, ownBefore := resources(ofProcess), resources(ofThread)
	blockThread(long)
	after, ownAfter := resources(ofProcess), resources(ofThread)
	close(release)
	group.Wait()
	return []metric{
		{"A13.cpu", ((after.cpu - before.cpu) - (ownAfter.cpu - ownBefore.cpu)) * 1e3, "ms"},
		{"A13.switches", float64((after.switches - before.switches) - (ownAfter.switches - ownBefore.switches)), "1"},
	}
}
