// Command meter shows how a Go program meters its calls: an http.RoundTripper that any SDK takes with its http.Client.
//
// The call itself is never broken: what cannot be sent to `tollmeter serve` is logged. Fields: docs/json.md.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// Meter sends one usage event for each call that passes. Wait before the program ends.
type Meter struct {
	Next        http.RoundTripper
	URL, Key    string         // of tollmeter serve
	Fields      map[string]any // of every event: service, provider, user_id ...
	outstanding sync.WaitGroup
}

type usage struct {
	Model string `json:"model"`
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Details    struct {
			Cached int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	} `json:"usage"`
}

// RoundTrip makes the call and reads its answer, which the caller gets as it was.
func (m *Meter) RoundTrip(request *http.Request) (*http.Response, error) {
	began := time.Now()
	var asked struct{ Model string }
	if request.GetBody != nil {
		if body, err := request.GetBody(); err == nil {
			_ = json.NewDecoder(body).Decode(&asked)
		}
	}
	answer, err := m.Next.RoundTrip(request)
	if err != nil {
		return answer, err
	}
	content, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	answer.Body = io.NopCloser(bytes.NewReader(content))
	if err != nil {
		return answer, err
	}
	var said usage
	_ = json.Unmarshal(content, &said)
	event := map[string]any{
		"event_id": newID(), "occurred_at": began.UTC().Format(time.RFC3339Nano), "model_sent": asked.Model,
		"model_used": said.Model, "http_status": answer.StatusCode, "latency_ms": time.Since(began).Milliseconds(),
		"status": "OK", "usage_source": "NONE", // not known is not 0
	}
	if answer.StatusCode >= 400 {
		event["status"] = "ERROR"
	}
	if said.Usage != nil {
		event["usage_source"] = "PROVIDER"
		event["input_tokens"], event["output_tokens"] = said.Usage.Prompt, said.Usage.Completion
		event["cache_read_tokens"] = said.Usage.Details.Cached
	}
	for name, value := range m.Fields {
		event[name] = value
	}
	m.outstanding.Add(1)
	go m.send(event)
	return answer, nil
}

// send tries again until the event is acknowledged: it has its id, so it counts once.
func (m *Meter) send(event map[string]any) {
	defer m.outstanding.Done()
	body, _ := json.Marshal(event)
	for pause := 200 * time.Millisecond; pause < 15*time.Second; pause *= 2 {
		request, _ := http.NewRequest("POST", m.URL+"/ingest", bytes.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Ingest-Key", m.Key)
		answer, err := http.DefaultClient.Do(request)
		if err == nil {
			said, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if answer.StatusCode < 300 {
				return
			}
			if answer.StatusCode < 500 && answer.StatusCode != 429 {
				log.Printf("tollmeter: a call was not recorded: %s", said)
				return
			}
		}
		time.Sleep(pause)
	}
	log.Print("tollmeter: a call was not recorded: the meter cannot be reached")
}

// Wait returns when every event is sent or given up.
func (m *Meter) Wait() { m.outstanding.Wait() }

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func main() {
	meter := &Meter{
		Next: http.DefaultTransport, URL: os.Getenv("TOLLMETER_URL"), Key: os.Getenv("INGEST_KEY"),
		Fields: map[string]any{"service": "shop-go", "provider": "openai"},
	}
	defer meter.Wait()
	client := &http.Client{Transport: meter}
	ask := `{"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}`
	answer, err := client.Post(os.Getenv("OPENAI_BASE_URL")+"/chat/completions", "application/json", strings.NewReader(ask))
	if err != nil {
		log.Print(err)
		return
	}
	defer answer.Body.Close()
	fmt.Println(answer.StatusCode)
}
