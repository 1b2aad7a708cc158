// The floor in another language: net/http and encoding/json, key check and decoding, nothing stored.
package main

import (
	"crypto/subtle"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"runtime"
)

type usage struct {
	Model  string `json:"model_sent"`
	Input  int64  `json:"input_tokens"`
	Output int64  `json:"output_tokens"`
	User   string `json:"user_id"`
}

func take(w http.ResponseWriter, r *http.Request) {
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("x-ingest-key")), []byte("ingest-key")) != 1 {
		w.WriteHeader(401)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 5<<20))
	var calls []usage
	if err == nil && len(body) > 0 && body[0] == '[' {
		err = json.Unmarshal(body, &calls)
	} else if err == nil {
		var one usage
		err = json.Unmarshal(body, &one)
		calls = append(calls, one)
	}
	if err != nil {
		w.WriteHeader(400)
		return
	}
	w.Header().Set("content-type", "application/json")
	w.WriteHeader(201)
	json.NewEncoder(w).Encode(map[string]int{"accepted": len(calls)})
}

func main() {
	runtime.GOMAXPROCS(1)
	http.HandleFunc("/ingest", take)
	http.HandleFunc("/batch", take)
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
