// Command fanout holds many watches open, cancels one file after another, and tells how soon each watch heard of it.
//
// The ids of the files are read from standard input, a line each, up to an empty line; all of them are watched by each
// watch, over gRPC or, with -http, over HTTP. Once every watch is open it says "open" and waits for a line; then each file
// is cancelled in turn, and a line of JSON tells the times from that call's start.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	pb "example.com/upload-service/clients/go/upload/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

// raw leaves answers as they came: who listens a thousand times must not be what is measured.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return proto.Marshal(v.(proto.Message)) }
func (raw) Unmarshal(b []byte, v any) error {
	*(v.(*[]byte)) = append((*v.(*[]byte))[:0], b...)
	return nil
}
func (raw) Name() string { return "proto" }

// The first byte of a WatchStatusResponse: the tag of its `file`, of its `bookmark`.
const fileTag, bookmarkTag = 0x0a, 0x22

// watches counts who has heard of what is awaited, and when.
type watches struct {
	opened, heard sync.WaitGroup
	at            []time.Time
}

// hear is called by watch i for each message; until its bookmark it is opening.
func (w *watches) hear(i int, open *bool, file, bookmark bool) {
	switch {
	case bookmark && !*open:
		*open = true
		w.opened.Done()
	case file && *open:
		w.at[i] = time.Now()
		w.heard.Done()
	}
}

func main() {
	target := flag.String("target", "", "host:port of gRPC")
	base := flag.String("http", "", "watch over HTTP, at this address")
	accept := flag.String("accept", "application/json", "what a watch over HTTP accepts")
	count := flag.Int("watches", 1000, "watches")
	connections := flag.Int("connections", 10, "connections of the watches over gRPC")
	flag.Parse()
	input := bufio.NewScanner(os.Stdin)
	var files []string
	for input.Scan() && input.Text() != "" {
		files = append(files, input.Text())
	}
	all := &watches{at: make([]time.Time, *count)}
	all.opened.Add(*count)
	if *base != "" {
		for i := range *count {
			go all.overHTTP(i, *base, *accept, files)
		}
	} else {
		clients := make([]*grpc.ClientConn, *connections)
		for i := range clients {
			clients[i] = connect(*target)
		}
		for i := range *count {
			go all.overGRPC(i, clients[i%len(clients)], files)
		}
	}
	all.opened.Wait()
	fmt.Println("open")
	input.Scan()
	caller := pb.NewUploadServiceClient(connect(*target, grpc.WithDefaultCallOptions()))
	for _, file := range files {
		all.round(caller, file)
		// What one round leaves to do must not be the next one's.
		time.Sleep(50 * time.Millisecond)
	}
}

func connect(target string, options ...grpc.DialOption) *grpc.ClientConn {
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	client, err := grpc.NewClient(target, options...)
	must(err)
	client.Connect()
	return client
}

// round cancels a file and prints, in ms: when the median and the last watch had heard, and the caller its answer.
func (w *watches) round(caller pb.UploadServiceClient, file string) {
	w.heard.Add(len(w.at))
	began := time.Now()
	_, err := caller.CancelFile(context.Background(), &pb.CancelFileRequest{FileId: file, Reason: "benchmark"})
	must(err)
	answered := time.Now()
	w.heard.Wait()
	sort.Slice(w.at, func(a, b int) bool { return w.at[a].Before(w.at[b]) })
	ms := func(t time.Time) float64 { return t.Sub(began).Seconds() * 1000 }
	line, _ := json.Marshal(map[string]float64{
		"first": ms(w.at[0]), "median": ms(w.at[len(w.at)/2]), "last": ms(w.at[len(w.at)-1]), "answered": ms(answered),
	})
	fmt.Println(string(line))
}

func (w *watches) overGRPC(i int, client *grpc.ClientConn, files []string) {
	stream, err := client.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true},
		"/upload.v1.UploadService/WatchStatus", grpc.ForceCodec(raw{}))
	must(err)
	must(stream.SendMsg(&pb.WatchStatusRequest{FileIds: files}))
	must(stream.CloseSend())
	var message []byte
	open := false
	for stream.RecvMsg(&message) == nil {
		w.hear(i, &open, message[0] == fileTag, message[0] == bookmarkTag)
	}
}

func (w *watches) overHTTP(i int, base, accept string, files []string) {
	query := url.Values{"file_ids": files}
	request, err := http.NewRequest("GET", base+"/api/v1/watch?"+query.Encode(), nil)
	must(err)
	request.Header.Set("Accept", accept)
	answer, err := http.DefaultClient.Do(request)
	must(err)
	if answer.StatusCode != http.StatusOK || !strings.HasPrefix(answer.Header.Get("Content-Type"), accept) {
		panic(answer.Status + " " + answer.Header.Get("Content-Type"))
	}
	lines := bufio.NewReader(answer.Body)
	open := false
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return
		}
		w.hear(i, &open, bytes.Contains(line, []byte(`"file":`)), bytes.Contains(line, []byte(`"bookmark":`)))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
