// Command equal is the least that does the work of an upload as the service does it: it stores, hashes with SHA-256 beside
// the write, and syncs every 8 MiB and at the end. POST makes a file, PATCH sends it whole. Nothing else of tus is in it.
package main

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
)

const syncEvery = 8 << 20

var (
	folder = flag.String("folder", "", "where files go")
	number atomic.Int64
	pieces = make(chan []byte, 64)
)

func store(w http.ResponseWriter, request *http.Request, path string) {
	file, err := os.Create(path)
	if err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	defer file.Close()
	hashed := make(chan []byte, 8)
	digest := make(chan [32]byte)
	go func() {
		hash := sha256.New()
		for piece := range hashed {
			hash.Write(piece)
			select {
			case pieces <- piece[:cap(piece)]:
			default:
			}
		}
		digest <- [32]byte(hash.Sum(nil))
	}()
	unsynced := 0
	for {
		var piece []byte
		select {
		case piece = <-pieces:
		default:
			piece = make([]byte, 256<<10)
		}
		n, err := io.ReadFull(request.Body, piece)
		if n > 0 {
			file.Write(piece[:n])
			hashed <- piece[:n]
			if unsynced += n; unsynced >= syncEvery {
				syscall.Fdatasync(int(file.Fd()))
				unsynced = 0
			}
		}
		if err != nil {
			break
		}
	}
	syscall.Fdatasync(int(file.Fd()))
	close(hashed)
	w.Header().Set("X-Digest", fmt.Sprintf("%x", <-digest))
	w.WriteHeader(204)
}

func main() {
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		switch request.Method {
		case "POST":
			name := fmt.Sprintf("%d", number.Add(1))
			w.Header().Set("Location", "/files/"+name)
			if request.ContentLength > 0 {
				store(w, request, filepath.Join(*folder, name))
				return
			}
			w.WriteHeader(201)
		case "PATCH":
			store(w, request, filepath.Join(*folder, filepath.Base(request.URL.Path)))
		default:
			w.WriteHeader(405)
		}
	}))
}
