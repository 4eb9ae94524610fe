// The workloads of bench/compare.sh in Go: `peer-go WORKLOAD WORKERS [quick]` measures one of them after a warm-up
// and prints a line for each metric; `peer-go echo|http --workers N …` is a server (server.go). Workers are
// GOMAXPROCS; everything else is as Go has it (GOGC=100, no memory limit).
package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
)

type metric struct {
	key   string
	value float64
	unit  string
}

type workload struct {
	id      string
	measure func(quick bool) []metric
	fresh   bool // measures memory or first touches: no warm-up
}

func workloads() []workload {
	return slices.Concat(schedulingWorkloads, memoryWorkloads, communicationWorkloads, timingWorkloads)
}

type usage struct {
	cpu      float64 // seconds
	switches int64
}

const (
	ofProcess = syscall.RUSAGE_SELF
	ofThread  = 1 // RUSAGE_THREAD
)

func resources(who int) usage {
	var r syscall.Rusage
	if err := syscall.Getrusage(who, &r); err != nil {
		panic(err)
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return usage{seconds(r.Utime) + seconds(r.Stime), int64(r.Nvcsw + r.Nivcsw)}
}

// peakKiB is VmHWM, since the rusage's peak is inherited from whoever has started the program.
func peakKiB() (peak int64) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("VmHWM:"))
	if _, err := fmt.Sscan(string(rest), &peak); err != nil {
		panic(err)
	}
	return peak
}

func residentBytes() float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		panic(err)
	}
	pages, _ := strconv.ParseFloat(string(bytes.Fields(text)[1]), 64)
	return pages * float64(os.Getpagesize())
}

func quantile(values []time.Duration, at float64) float64 {
	slices.Sort(values)
	return float64(values[int(at*float64(len(values)-1)+0.5)])
}

func expect(ok bool) {
	if !ok {
		panic("wrong result")
	}
}

// blockThread sleeps in the kernel, like a C function that blocks: the goroutine keeps its thread.
func blockThread(d time.Duration) {
	rest := syscall.NsecToTimespec(int64(d))
	for syscall.Nanosleep(&rest, &rest) == syscall.EINTR {
	}
}

func run(w workload, workers int, quick bool) {
	runtime.GOMAXPROCS(workers)
	if !w.fresh {
		w.measure(quick)
	}
	before := resources(ofProcess)
	metrics := w.measure(quick)
	after := resources(ofProcess)
	for _, m := range metrics {
		fmt.Printf("%s workers=%d value=%.6f unit=%s rss_kb=%d cpu_s=%.6f ctxsw=%d\n", m.key, workers, m.value, m.unit,
			peakKiB(), after.cpu-before.cpu, after.switches-before.switches)
	}
}

func main() {
	arguments := os.Args[1:]
	if len(arguments) == 0 {
		usageExit()
	}
	switch arguments[0] {
	case "--list":
		for _, w := range workloads() {
			fmt.Println(w.id)
		}
	case "--version":
		fmt.Println(runtime.Version())
	case "echo", "http":
		serve(arguments[0], arguments[1:])
	default:
		at := slices.IndexFunc(workloads(), func(w workload) bool { return w.id == arguments[0] })
		if at < 0 || len(arguments) < 2 {
			usageExit()
		}
		workers, err := strconv.Atoi(arguments[1])
		if err != nil {
			usageExit()
		}
		run(workloads()[at], workers, len(arguments) > 2 && arguments[2] == "quick")
	}
}

func usageExit() {
	fmt.Fprintln(os.Stderr, "usage: peer-go WORKLOAD WORKERS [quick] | echo|http [--port N] [--workers N] [--seconds S] | --list")
	os.Exit(2)
}
