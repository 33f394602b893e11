// Command stops keeps a server busy (-load), or measures how soon the senders of cancelled uploads hear of it.
//
// Two processes, so that who measures is not who is busy. The load goes on until standard input ends. Times are of the
// machine's clock, in microseconds since 1970: the server's log is laid beside them.
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"os"
	"sync/atomic"
	"time"

	pb "example.com/upload-service/clients/go/upload/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	chunkBytes = 256 * 1024
	// A sender of the load begins another file after so much, so that the disk keeps its room.
	loadBytes = 256 * 1024 * 1024
	hugeBytes = 1 << 40
)

// codec passes data messages, made once, through as they are.
type codec struct{}

func (codec) Marshal(v any) ([]byte, error) {
	if raw, ok := v.(*[]byte); ok {
		return *raw, nil
	}
	return proto.Marshal(v.(proto.Message))
}
func (codec) Unmarshal(b []byte, v any) error { return proto.Unmarshal(b, v.(proto.Message)) }
func (codec) Name() string                    { return "proto" }

var data = append(binary.AppendUvarint([]byte{0x12}, chunkBytes), make([]byte, chunkBytes)...)

func main() {
	target := flag.String("target", "", "host:port")
	load := flag.Bool("load", false, "keep the server busy")
	senders := flag.Int("senders", 8, "load: uploads at full speed")
	watchers := flag.Int("watchers", 50, "load: watchers of everything")
	others := flag.Int("others", 100, "load: other files announced and cancelled a second")
	cancels := flag.Int("cancels", 200, "uploads to cancel under their senders")
	flag.Parse()
	if *load {
		keepBusy(*target, *senders, *watchers, *others)
		return
	}
	sending, asking := connect(*target), connect(*target)
	for i := 0; i < *cancels; i++ {
		line, err := json.Marshal(cancelOne(sending, asking))
		must(err)
		fmt.Println(string(line))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func connect(target string) pb.UploadServiceClient {
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{})))
	must(err)
	return pb.NewUploadServiceClient(connection)
}

func announce(client pb.UploadServiceClient, name string, size int64) string {
	made, err := client.InitiateUpload(context.Background(), &pb.InitiateUploadRequest{Filename: name, SizeBytes: size})
	must(err)
	return made.File.FileId
}

// upload is one open stream; told gets the time at which its sender heard `stopped`.
type upload struct {
	fileID string
	sent   atomic.Int64
	told   chan time.Time
}

// send opens a stream on a new file and sends at full speed until it is stopped.
func send(client pb.UploadServiceClient, name string) *upload {
	u := &upload{fileID: announce(client, name, hugeBytes), told: make(chan time.Time, 1)}
	stream, err := client.UploadFile(context.Background())
	must(err)
	header := &pb.UploadHeader{FileId: u.fileID}
	must(stream.Send(&pb.UploadFileRequest{Message: &pb.UploadFileRequest_Header{Header: header}}))
	var stopped atomic.Bool
	go func() {
		for !stopped.Load() && stream.SendMsg(&data) == nil {
			u.sent.Add(chunkBytes)
		}
		must(stream.CloseSend())
	}()
	go func() {
		for {
			answer, err := stream.Recv()
			at := time.Now()
			must(err)
			if answer.GetStopped() != nil {
				stopped.Store(true)
				u.told <- at
				for err == nil {
					_, err = stream.Recv()
				}
				return
			}
		}
	}()
	return u
}

type times struct {
	FileID   string `json:"file_id"`
	Asked    int64  `json:"asked"`
	Answered int64  `json:"answered"`
	Stopped  int64  `json:"stopped"`
}

func cancelOne(sending, asking pb.UploadServiceClient) times {
	u := send(sending, "victim")
	for u.sent.Load() < 16*chunkBytes {
		time.Sleep(time.Millisecond)
	}
	// At no fixed point of whatever the server does in turns.
	time.Sleep(time.Duration(rand.Int63n(int64(50 * time.Millisecond))))
	asked := time.Now()
	_, err := asking.CancelFile(context.Background(), &pb.CancelFileRequest{FileId: u.fileID})
	answered := time.Now()
	must(err)
	stopped := <-u.told
	return times{u.fileID, asked.UnixMicro(), answered.UnixMicro(), stopped.UnixMicro()}
}

func keepBusy(target string, senders, watchers, others int) {
	var sent, cancelled, heard atomic.Int64
	for i := 0; i < senders; i++ {
		go sendForEver(connect(target), &sent)
	}
	watching := connect(target)
	for i := 0; i < watchers; i++ {
		go watchForEver(watching, &heard)
	}
	go cancelForEver(connect(target), others, &cancelled)
	time.Sleep(2 * time.Second) // until all of it is under way
	began, was := time.Now(), [3]int64{sent.Load(), cancelled.Load(), heard.Load()}
	fmt.Println("busy")
	_, err := io.Copy(io.Discard, os.Stdin)
	must(err)
	seconds := time.Since(began).Seconds()
	line, err := json.Marshal(map[string]float64{
		"mib_per_second":     float64(sent.Load()-was[0]) / seconds / (1 << 20),
		"cancels_per_second": float64(cancelled.Load()-was[1]) / seconds,
		"heard_per_second":   float64(heard.Load()-was[2]) / seconds,
	})
	must(err)
	fmt.Println(string(line))
}

func sendForEver(client pb.UploadServiceClient, sent *atomic.Int64) {
	for {
		u := send(client, "load")
		var seen int64
		for seen < loadBytes {
			time.Sleep(10 * time.Millisecond)
			now := u.sent.Load()
			sent.Add(now - seen)
			seen = now
		}
		_, err := client.CancelFile(context.Background(), &pb.CancelFileRequest{FileId: u.fileID})
		must(err)
		<-u.told
	}
}

func watchForEver(client pb.UploadServiceClient, heard *atomic.Int64) {
	every := durationpb.New(time.Second)
	stream, err := client.WatchStatus(context.Background(), &pb.WatchStatusRequest{All: true, ProgressInterval: every})
	must(err)
	for {
		_, err := stream.Recv()
		must(err)
		heard.Add(1)
	}
}

func cancelForEver(client pb.UploadServiceClient, perSecond int, cancelled *atomic.Int64) {
	for range time.Tick(time.Second / time.Duration(perSecond)) {
		fileID := announce(client, "other", 1)
		_, err := client.CancelFile(context.Background(), &pb.CancelFileRequest{FileId: fileID})
		must(err)
		cancelled.Add(1)
	}
}
