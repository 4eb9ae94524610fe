package main

import (
	"iter"
	"sync"
	"time"
)

var communicationWorkloads = []workload{
	{"C1", chanPingPong, false},
	{"C2", manyToOne, false},
	{"C3", manyToMany, false},
	{"C4", mutex, false},
	{"C5", selecting, false},
	{"C6", generator, false},
}

func chanPingPong(quick bool) []metric {
	trips := 1_000_000
	if quick {
		trips = 300_000
	}
	there, back := make(chan int, 1), make(chan int, 1)
	go func() {
		for ball := range there {
			back <- ball
		}
	}()
	start := time.Now()
	for i := range trips {
		there <- i
		expect(<-back == i)
	}
	elapsed := time.Since(start)
	close(there)
	return []metric{{"C1", float64(elapsed) / float64(trips), "ns"}}
}

func crowd(key string, senders, receivers, capacity, messages int) []metric {
	start := time.Now()
	messagesOf := make(chan int, capacity)
	var sending, receiving sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for i := range messages / senders {
				messagesOf <- i
			}
		})
	}
	counts := make([]int, receivers)
	for i := range receivers {
		receiving.Go(func() {
			count := 0
			for range messagesOf {
				count++
			}
			counts[i] = count
		})
	}
	sending.Wait()
	close(messagesOf)
	receiving.Wait()
	elapsed := time.Since(start)
	sum := 0
	for _, count := range counts {
		sum += count
	}
	expect(sum == messages)
	return []metric{{key, float64(elapsed) / float64(messages), "ns"}}
}

func manyToOne(quick bool) []metric {
	if quick {
		return crowd("C2", 4, 1, 128, 400_000)
	}
	return crowd("C2", 4, 1, 128, 1_000_000)
}

func manyToMany(quick bool) []metric {
	if quick {
		return crowd("C3", 4, 4, 1024, 1_000_000)
	}
	return crowd("C3", 4, 4, 1024, 10_000_000)
}

func mutex(bool) []metric {
	const tasks, turns = 8, 200_000
	var lock sync.Mutex
	var value int
	var group sync.WaitGroup
	start := time.Now()
	for range tasks {
		group.Go(func() {
			for range turns {
				lock.Lock()
				value++
				lock.Unlock()
			}
		})
	}
	group.Wait()
	elapsed := time.Since(start)
	expect(value == tasks*turns)
	return []metric{{"C4", float64(elapsed) / (tasks * turns), "ns"}}
}

func selectWith(key string, capacity, messages int) metric {
	var feeds [8]chan int
	for i := range feeds {
		feeds[i] = make(chan int, capacity)
	}
	go func() {
		for i := range messages {
			feeds[i%8] <- i
		}
	}()
	sum, message := 0, 0
	start := time.Now()
	for range messages {
		select {
		case message = <-feeds[0]:
		case message = <-feeds[1]:
		case message = <-feeds[2]:
		case message = <-feeds[3]:
		case message = <-feeds[4]:
		case message = <-feeds[5]:
		case message = <-feeds[6]:
		case message = <-feeds[7]:
		}
		sum += message
	}
	elapsed := time.Since(start)
	expect(sum == messages*(messages-1)/2)
	return metric{key, float64(elapsed) / float64(messages), "ns"}
}

func selecting(quick bool) []metric {
	messages := 1_000_000
	if quick {
		messages = 300_000
	}
	return []metric{selectWith("C5.buffered", 16, messages), selectWith("C5.meeting", 0, messages)}
}

// iter.Pull is the generator that runs apart from its reader; a loop over the sequence itself is a plain call.
func generator(bool) []metric {
	const values = 10_000_000
	numbers := func(yield func(int) bool) {
		for i := range values {
			if !yield(i) {
				return
			}
		}
	}
	next, stop := iter.Pull(iter.Seq[int](numbers))
	defer stop()
	start := time.Now()
	sum := 0
	for value, ok := next(); ok; value, ok = next() {
		sum += value
	}
	elapsed := time.Since(start)
	expect(sum == values*(values-1)/2)
	return []metric{{"C6.task", float64(elapsed) / values, "ns"}}
}
