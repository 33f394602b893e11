// Command loadgen sends prepared gRPC requests, so many at once, and prints how fast they were answered.
//
// It moves bytes without looking into them: on two cores the client must not be what is measured.
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
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
		"p50_ms": at(0.5), "p99_ms": at(0.99),
	})
	fmt.Println(string(line))
}
