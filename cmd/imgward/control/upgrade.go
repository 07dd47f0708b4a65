// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
)

// Upgrade asks for a successor, and answers that it is about to take over.
type Upgrade struct {
	Type   string `json:"type"` // "upgrade"
	Binary string `json:"binary"`
}

func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	asked := Upgrade{}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Binary == "" {
		fail(w, http.StatusBadRequest, errors.New("which program is to take over?"))
		return
	}
	if err := s.Upgrade(r.Context(), asked.Binary); err != nil {
		fail(w, http.StatusConflict, err)
		return
	}
	asked.Type = "upgrade"
	write(w, asked)
}

// Upgrade asks the daemon to let another program take over.
func (c *Client) Upgrade(ctx context.Context, binary string) error {
	return c.Post(ctx, "upgrade", Upgrade{Binary: binary}, func([]byte) error { return nil })
}

// View asks for the description of the view alone.
func (c *Client) View(ctx context.Context) (v View, err error) {
	err = c.Get(ctx, "status", nil, func(line []byte) error {
		if v.Type != "" {
			return nil
		}
		return json.Unmarshal(line, &v)
	})
	return v, err
}
