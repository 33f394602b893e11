// Upload a file, cancel it, or watch what becomes of it, over the generated code alone:
//
//	go run ./example upload film.mov
//	go run ./example cancel FILE_ID "the wrong file"
//	go run ./example watch FILE_ID
//	go run ./example download FILE_ID film.copy
//
// UPLOAD_SERVER names the server: HOST:PORT in plain text, https://HOST:PORT for TLS. The flags -ca, -cert, -key and
// -token-file come first; UPLOAD_TOKEN is the token where no file is named.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"example.com/upload-service/clients/go/upload"
	uploadv1 "example.com/upload-service/clients/go/upload/v1"
)

const (
	chunkBytes  = 256 << 10
	callTimeout = 10 * time.Second
)

var (
	caFile    = flag.String("ca", "", "PEM file of who signs the server's certificate (default: who is widely trusted)")
	certFile  = flag.String("cert", "", "PEM file of the client's own certificate")
	keyFile   = flag.String("key", "", "PEM file of its key")
	tokenFile = flag.String("token-file", "", "file of the token that says who calls (default: UPLOAD_TOKEN)")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	flag.Parse()
	if err := run(ctx, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, describe(err))
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: example upload FILE | cancel FILE_ID [REASON] | watch FILE_ID | download FILE_ID PATH; UPLOAD_SERVER names the server")
	}
	target := os.Getenv("UPLOAD_SERVER")
	if target == "" {
		target = "localhost:50051"
	}
	target, transport, err := transportTo(target)
	if err != nil {
		return err
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(transport)}
	if *tokenFile != "" || os.Getenv("UPLOAD_TOKEN") != "" {
		if transport.Info().SecurityProtocol != "tls" && !isLoopback(target) {
			return fmt.Errorf("a token would travel to %s in plain text: name the server as https://%s", target, target)
		}
		options = append(options, grpc.WithPerRPCCredentials(bearer{}))
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := uploadv1.NewUploadServiceClient(conn)
	switch args[0] {
	case "upload":
		return send(ctx, client, args[1])
	case "cancel":
		return cancel(ctx, client, args[1], strings.Join(args[2:], " "))
	case "watch":
		return watch(ctx, client, args[1])
	case "download":
		return download(ctx, client, args[1], args[len(args)-1])
	}
	return fmt.Errorf("there is no command %q", args[0])
}

// bearer gives each call the token of the moment: a file may be renewed while the program runs.
type bearer struct{}

func (bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token := os.Getenv("UPLOAD_TOKEN")
	if *tokenFile != "" {
		text, err := os.ReadFile(*tokenFile)
		if err != nil {
			return nil, err
		}
		token = string(text)
	}
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(token)}, nil
}

// RequireTransportSecurity is false for this machine; run refuses plain text to any other.
func (bearer) RequireTransportSecurity() bool { return false }

func isLoopback(target string) bool {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		host = target
	}
	address := net.ParseIP(host)
	return host == "localhost" || address != nil && address.IsLoopback()
}

// transportTo returns the host and port of a server, and how to speak to it.
func transportTo(server string) (string, credentials.TransportCredentials, error) {
	target, secure := strings.CutPrefix(server, "https://")
	if !secure {
		if *caFile+*certFile+*keyFile != "" {
			return "", nil, fmt.Errorf("-ca, -cert and -key go with https://: %s is spoken to in plain text", server)
		}
		return target, insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if *caFile != "" {
		signers, err := os.ReadFile(*caFile)
		if err != nil {
			return "", nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(signers) {
			return "", nil, fmt.Errorf("there is no certificate in %s", *caFile)
		}
	}
	if *certFile != "" || *keyFile != "" {
		own, err := tls.LoadX509KeyPair(*certFile, *keyFile)
		if err != nil {
			return "", nil, err
		}
		config.Certificates = []tls.Certificate{own}
	}
	return target, credentials.NewTLS(config), nil
}

// send announces the file, sends it and commits it. Ctrl-C cancels it on the server.
func send(ctx context.Context, client uploadv1.UploadServiceClient, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	announced, err := initiate(ctx, client, filepath.Base(path), info.Size())
	if err != nil {
		return err
	}
	fmt.Println("file_id", announced.FileId)
	// The stream lives on when ctx ends: the server is then told, and says how it went.
	stream, err := client.UploadFile(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = cancel(context.WithoutCancel(ctx), client, announced.FileId, "interrupted") })
	go write(stream, announced.FileId, file)
	return hear(stream)
}

func initiate(ctx context.Context, client uploadv1.UploadServiceClient, name string, size int64) (*uploadv1.File, error) {
	ctx, done := context.WithTimeout(ctx, callTimeout)
	defer done()
	answer, err := client.InitiateUpload(ctx, &uploadv1.InitiateUploadRequest{
		Filename: name, SizeBytes: size, RequestId: rand.Text(),
	})
	return answer.GetFile(), err
}

// write is the stream's one sender: header, data, commit. When it fails, hear learns why.
func write(stream grpc.BidiStreamingClient[uploadv1.UploadFileRequest, uploadv1.UploadFileResponse], fileID string, file io.Reader) {
	header := &uploadv1.UploadHeader{FileId: fileID}
	if stream.Send(&uploadv1.UploadFileRequest{Message: &uploadv1.UploadFileRequest_Header{Header: header}}) != nil {
		return
	}
	digest := sha256.New()
	for {
		chunk := make([]byte, chunkBytes)
		count, err := io.ReadFull(file, chunk)
		digest.Write(chunk[:count])
		if count > 0 && stream.Send(&uploadv1.UploadFileRequest{Message: &uploadv1.UploadFileRequest_Data{Data: chunk[:count]}}) != nil {
			return
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			// Without a commit the file stays as it is and can be resumed.
			_ = stream.CloseSend()
			return
		}
	}
	commit := &uploadv1.UploadCommit{Sha256: hex.EncodeToString(digest.Sum(nil))}
	_ = stream.Send(&uploadv1.UploadFileRequest{Message: &uploadv1.UploadFileRequest_Commit{Commit: commit}})
	_ = stream.CloseSend()
}

// hear tells what the server says until the stream ends.
func hear(stream grpc.BidiStreamingClient[uploadv1.UploadFileRequest, uploadv1.UploadFileResponse]) error {
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch message := response.Message.(type) {
		case *uploadv1.UploadFileResponse_Progress:
			fmt.Println("durable", message.Progress.BytesReceived)
		case *uploadv1.UploadFileResponse_Completed:
			fmt.Println("completed", message.Completed.Sha256)
		case *uploadv1.UploadFileResponse_Stopped:
			fmt.Printf("stopped by %s: %s\n", message.Stopped.CancelledBy, message.Stopped.CancelReason)
			// Who heeds it within a second hears why the stream ends.
			_ = stream.CloseSend()
		}
	}
}

// cancel asks under a request id, so that asking again after a lost answer is safe.
func cancel(ctx context.Context, client uploadv1.UploadServiceClient, fileID, reason string) error {
	ctx, done := context.WithTimeout(ctx, callTimeout)
	defer done()
	answer, err := client.CancelFile(ctx, &uploadv1.CancelFileRequest{FileId: fileID, Reason: reason, RequestId: rand.Text()})
	if err == nil {
		fmt.Println(answer.Message, answer.CancelledAt.AsTime().Format(time.RFC3339Nano))
	}
	return err
}

// watch tells each state of the file until it is final.
func watch(ctx context.Context, client uploadv1.UploadServiceClient, fileID string) error {
	stream, err := client.WatchStatus(ctx, &uploadv1.WatchStatusRequest{FileIds: []string{fileID}, UntilFinal: true})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if file := message.GetFile(); file != nil {
			fmt.Println(strings.ToLower(strings.TrimPrefix(file.Status.String(), "UPLOAD_STATUS_")), file.CancelledBy)
		}
	}
}

// download stores the bytes of a completed file. Under their name only once all are there: until then beside it.
func download(ctx context.Context, client uploadv1.UploadServiceClient, fileID, path string) error {
	part, err := os.CreateTemp(filepath.Dir(path), ".download-*")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	defer part.Close()
	file, err := upload.Download(ctx, client, fileID, part)
	if err != nil {
		return err
	}
	if err := part.Close(); err != nil {
		return err
	}
	fmt.Println("downloaded", file.SizeBytes, "bytes of", file.Filename)
	return os.Rename(part.Name(), path)
}

// describe says an error as the service meant it: its reason, its facts, its words.
func describe(err error) string {
	told := status.Convert(err)
	for _, detail := range told.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return fmt.Sprintf("%s: %s %v", info.Reason, told.Message(), info.Metadata)
		}
	}
	return told.Message()
}
