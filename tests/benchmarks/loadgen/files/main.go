// Command files uploads files, so many at once, by tus or by plain PUT, and prints how long it took.
//
// With -cancel it uploads one, has it cancelled under way, and prints how long bytes went on after the cancel was answered.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Files up to this size go with the request that creates them (tus: creation-with-upload).
const small = 256 << 10

var (
	base     = flag.String("url", "", "where files are created (tus), or the folder that they are PUT into")
	kind     = flag.String("kind", "tus", "tus or put")
	size     = flag.Int64("size", 4096, "bytes of a file")
	count    = flag.Int("count", 1, "files")
	inFlight = flag.Int("in-flight", 1, "files at once")
	cancel   = flag.String("cancel", "", "how one is cancelled: METHOD and URL, in which {id} is the last part of its own")
	after    = flag.Duration("after", time.Second, "when")
	block    = make([]byte, 1<<20)
	client   = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, WriteBufferSize: 256 << 10}}
)

// body is a file's bytes: one block over and over. It counts what the connection has taken of it.
type body struct {
	left  int64
	taken *atomic.Int64
}

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), b.left)], block)
	b.left -= int64(n)
	b.taken.Add(int64(n))
	return n, nil
}

func call(method, target string, content io.Reader, length int64, headers ...string) (*http.Response, error) {
	request, err := http.NewRequest(method, target, content)
	if err != nil {
		panic(err)
	}
	request.ContentLength = length
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	if answer.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %s", method, target, answer.Status)
	}
	return answer, nil
}

// upload sends one file; created hears its URL before the first byte of a large one.
func upload(number int, taken *atomic.Int64, created func(string)) error {
	content := &body{*size, taken}
	if *kind == "put" {
		target := fmt.Sprintf("%s/%d-%d", *base, number, rand.Int63())
		created(target)
		_, err := call("PUT", target, content, *size)
		return err
	}
	headers := []string{"Tus-Resumable", "1.0.0", "Upload-Length", strconv.FormatInt(*size, 10),
		"Upload-Metadata", "filename YS5iaW4="}
	if *size <= small {
		_, err := call("POST", *base, content, *size, append(headers, "Content-Type", "application/offset+octet-stream")...)
		return err
	}
	answer, err := call("POST", *base, bytes.NewReader(nil), 0, headers...)
	if err != nil {
		return err
	}
	where, err := answer.Location()
	if err != nil {
		return err
	}
	created(where.String())
	_, err = call("PATCH", where.String(), content, *size, "Tus-Resumable", "1.0.0", "Upload-Offset", "0",
		"Content-Type", "application/offset+octet-stream")
	return err
}

func cancelled() map[string]any {
	var taken atomic.Int64
	target := make(chan string, 1)
	ended := make(chan error, 1)
	go func() { ended <- upload(0, &taken, func(where string) { target <- where }) }()
	where, err := url.Parse(<-target)
	if err != nil {
		panic(err)
	}
	time.Sleep(*after)
	method, how, _ := strings.Cut(*cancel, " ")
	how = strings.ReplaceAll(how, "{url}", where.String())
	how = strings.ReplaceAll(how, "{id}", where.Path[strings.LastIndex(where.Path, "/")+1:])
	asked := time.Now()
	before := taken.Load()
	_, refused := call(method, how, bytes.NewReader(nil), 0, "Tus-Resumable", "1.0.0")
	answered := time.Now()
	result := <-ended
	return map[string]any{
		"answer_ms": answered.Sub(asked).Seconds() * 1e3, "refused": fmt.Sprint(refused), "end": fmt.Sprint(result),
		"went_on_ms": max(0, time.Since(answered).Seconds()*1e3), "sent_after": taken.Load() - before,
	}
}

func main() {
	flag.Parse()
	rand.Read(block)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if *cancel != "" {
		json.NewEncoder(os.Stdout).Encode(cancelled())
		return
	}
	took := make([]float64, *count)
	var next, failed, taken atomic.Int64
	var first atomic.Value
	var wait sync.WaitGroup
	began := time.Now()
	for range *inFlight {
		wait.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(*count) {
					return
				}
				start := time.Now()
				if err := upload(int(i), &taken, func(string) {}); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, err.Error())
				}
				took[i] = time.Since(start).Seconds() * 1e3
			}
		})
	}
	wait.Wait()
	seconds := time.Since(began).Seconds()
	sort.Float64s(took)
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"seconds": seconds, "failed": failed.Load(), "error": first.Load(),
		"p50": took[*count/2], "p99": took[*count*99/100],
	})
}
