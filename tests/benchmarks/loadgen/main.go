// Command loadgen sends prepared gRPC requests, so many at once, and prints how fast they were answered.
//
// It moves bytes without looking into them: on two cores the client must not be what is measured. With -upload it sends one
// file instead: the first request is the header, the last one the commit, and between them data messages of -chunk bytes.
// With -then each request announces a file, whose -upload bytes are sent by a stream of that method.
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// raw passes messages through as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)   { return *(v.(*[]byte)), nil }
func (raw) Unmarshal(b []byte, v any) error { *(v.(*[]byte)) = append([]byte(nil), b...); return nil }
func (raw) Name() string                    { return "proto" }

func main() {
	target := flag.String("target", "", "host:port")
	method := flag.String("method", "", "/package.Service/Method")
	inFlight := flag.Int("in-flight", 64, "requests at once")
	connections := flag.Int("connections", 4, "connections")
	file := flag.String("requests", "", "file of requests, each after its length (32 bits, big endian)")
	upload := flag.Int64("upload", 0, "bytes of one upload")
	then := flag.String("then", "", "/package.Service/Method of the stream that sends each file")
	chunk := flag.Int("chunk", 256*1024, "bytes of a data message")
	flag.Parse()

	data, err := os.ReadFile(*file)
	if err != nil {
		panic(err)
	}
	var requests [][]byte
	for len(data) > 0 {
		n := binary.BigEndian.Uint32(data)
		requests = append(requests, data[4:4+n])
		data = data[4+n:]
	}
	clients := make([]*grpc.ClientConn, *connections)
	for i := range clients {
		clients[i], err = grpc.NewClient(*target, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
		if err != nil {
			panic(err)
		}
		clients[i].Connect()
	}
	if *upload > 0 && *then == "" {
		seconds := send(clients[0], *method, requests[0], requests[1], *upload, *chunk)
		fmt.Printf("{\"failed\": 0, \"seconds\": %f}\n", seconds)
		return
	}
	took := make([]time.Duration, len(requests))
	var next, failed atomic.Int64
	var wait sync.WaitGroup
	began := time.Now()
	for worker := 0; worker < *inFlight; worker++ {
		wait.Add(1)
		go func(client *grpc.ClientConn) {
			defer wait.Done()
			for {
				i := next.Add(1) - 1
				if i >= int64(len(requests)) {
					return
				}
				var answer []byte
				start := time.Now()
				if err := client.Invoke(context.Background(), *method, &requests[i], &answer); err != nil {
					failed.Add(1)
				} else if *then != "" {
					send(client, *then, header(answer), commit, *upload, int(*upload))
				}
				took[i] = time.Since(start)
			}
		}(clients[worker%len(clients)])
	}
	wait.Wait()
	seconds := time.Since(began).Seconds()
	sort.Slice(took, func(a, b int) bool { return took[a] < took[b] })
	at := func(q float64) float64 { return took[int(q*float64(len(took)-1))].Seconds() * 1000 }
	line, _ := json.Marshal(map[string]any{
		"calls": len(requests), "failed": failed.Load(), "per_second": float64(len(requests)) / seconds,
		"p50_ms": at(0.5), "p99_ms": at(0.99), "seconds": seconds,
	})
	fmt.Println(string(line))
}

// A commit without a digest: field 3, empty.
var commit = []byte{0x1a, 0}

// header makes the first message of a stream of the answer to an announcement: both hold the file's id as the first field
// of their first field.
func header(answer []byte) []byte {
	_, n := binary.Uvarint(answer[1:])
	id := answer[1+n:]
	id = id[:2+int(id[1])]
	return append([]byte{0x0a, byte(len(id))}, id...)
}

// send uploads size bytes and returns how long it took, commit included.
func send(client *grpc.ClientConn, method string, header, commit []byte, size int64, chunk int) float64 {
	stream, err := client.NewStream(context.Background(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		panic(err)
	}
	// A data message: field 2 (bytes), its length as a varint, the bytes.
	data := binary.AppendUvarint([]byte{0x12}, uint64(chunk))
	data = append(data, make([]byte, chunk)...)
	began := time.Now()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		messages := [][]byte{header}
		for at := int64(0); at < size; at += int64(chunk) {
			messages = append(messages, data)
		}
		for _, message := range append(messages, commit) {
			if err := stream.SendMsg(&message); err != nil {
				return
			}
		}
		stream.CloseSend()
	}()
	for {
		var answer []byte
		if err := stream.RecvMsg(&answer); err == io.EOF {
			break
		} else if err != nil {
			panic(err)
		}
	}
	<-sent
	return time.Since(began).Seconds()
}
