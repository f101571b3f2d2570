// A receiver of callbacks on net/http and encoding/json, as their documentation has it.
// Argument: the port.
package main

import (
	"encoding/json"
	"net/http"
	"os"
	"sync/atomic"
)

// Callback is what the handler reads; encoding/json finds the fields whatever the case of the names.
type Callback struct {
	Data struct {
		TaskID   *string `json:"task_id"`
		VideoURL *string `json:"video_url"`
	} `json:"data"`
}

func main() {
	var runs int64
	http.HandleFunc("/runs", func(response http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(response).Encode(map[string]int64{"runs": atomic.LoadInt64(&runs)})
	})
	http.HandleFunc("/callbacks/suno", func(response http.ResponseWriter, request *http.Request) {
		atomic.AddInt64(&runs, 1)
		var callback Callback
		if err := json.NewDecoder(request.Body).Decode(&callback); err != nil {
			http.Error(response, err.Error(), http.StatusBadRequest)
			return
		}
		json.NewEncoder(response).Encode(map[string]any{
			"id":       callback.Data.TaskID,
			"url":      callback.Data.VideoURL,
			"verified": request.Header.Get("x-callback-guard-id"),
		})
	})
	if err := http.ListenAndServe("127.0.0.1:"+os.Args[1], nil); err != nil {
		panic(err)
	}
}
