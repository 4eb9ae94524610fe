package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"
)

// The net package sets TCP_NODELAY, and the runtime raises the limit of descriptors.
func echo(connection net.Conn) {
	defer connection.Close()
	buffer := make([]byte, 1024)
	for {
		length, err := connection.Read(buffer)
		if err != nil {
			return
		}
		if _, err = connection.Write(buffer[:length]); err != nil {
			return
		}
	}
}

func acceptAll(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go echo(connection)
	}
}

func plaintext(writer http.ResponseWriter, _ *http.Request) {
	header := writer.Header()
	header["Server"] = serverName
	header["Content-Type"] = contentType
	header["Content-Length"] = contentLength
	writer.Write(hello)
}

var (
	serverName    = []string{"go"}
	contentType   = []string{"text/plain"}
	contentLength = []string{"13"}
	hello         = []byte("Hello, World!")
)

// compute is busy for 1 ms, ten times a second.
func compute() {
	for {
		for start := time.Now(); time.Since(start) < time.Millisecond; {
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// stick blocks its thread for 500 ms at a time.
func stick() {
	for {
		blockThread(500 * time.Millisecond)
		time.Sleep(500 * time.Millisecond)
	}
}

func serve(kind string, arguments []string) {
	flags := flag.NewFlagSet(kind, flag.ExitOnError)
	port := flags.Int("port", 0, "0 picks a free one")
	workers := flags.Int("workers", 1, "GOMAXPROCS")
	seconds := flags.Int("seconds", 60, "how long to serve")
	computing := flags.Int("compute", 0, "goroutines that compute 1 ms ten times a second")
	stuck := flags.Int("stuck", 0, "goroutines that block 500 ms at a time")
	flags.Parse(arguments)
	runtime.GOMAXPROCS(*workers)
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening on", listener.Addr())
	for range *computing {
		go compute()
	}
	for range *stuck {
		go stick()
	}
	if kind == "http" {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /plaintext", plaintext)
		go http.Serve(listener, mux)
	} else {
		go acceptAll(listener)
	}
	time.Sleep(time.Duration(*seconds) * time.Second)
}
