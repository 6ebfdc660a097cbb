package appliance

import (
	"errors"
	"fmt"
	"net/http"
)

// A KeyRequest changes one key.
type KeyRequest struct {
	// Name is that of KeyStatus.
	Name string `json:"name"`
	// Change is "set", "invalidate" or "clear".
	Change string `json:"change"`
	// Value is for "set", as in Appliance.SetKey.
	Value string `json:"value,omitempty"`
}

// ChangeKey does what a request asks for.
func (a *Appliance) ChangeKey(r KeyRequest) error { return a.changeKey("", r) }

// changeKey is ChangeKey for who asks.
func (a *Appliance) changeKey(by string, r KeyRequest) error {
	switch r.Change {
	case "set":
		return a.setKey(by, r.Name, r.Value)
	case "invalidate":
		return a.invalidateKey(by, r.Name)
	case "clear":
		return a.clearKey(by, r.Name)
	}
	return keyError(fmt.Errorf("expected set, invalidate or clear, found %q", r.Change))
}

// A KeyList is the answer to who asks for keys.
type KeyList struct {
	Keys []KeyStatus `json:"keys"`
}

// serveKeys answers GET /v1/keys.
func (a *Appliance) serveKeys(w http.ResponseWriter, _ *http.Request) error {
	list, err := a.Keys(false)
	if err != nil {
		return err
	}
	return answer(w, KeyList{list})
}

// serveKeyValues answers POST /v1/keys/values.
func (a *Appliance) serveKeyValues(w http.ResponseWriter, r *http.Request) error {
	list, err := a.Keys(true)
	if err != nil {
		return err
	}
	a.tell(Event{Kind: KeysShown, Level: "warning", Text: "the values of all keys were shown", By: who(r.Context())})
	return answer(w, KeyList{list})
}

// serveKeyChange answers POST /v1/keys.
func (a *Appliance) serveKeyChange(w http.ResponseWriter, r *http.Request) error {
	req, err := requested[KeyRequest](r)
	if err != nil {
		return err
	}
	switch err := a.changeKey(who(r.Context()), req); {
	case errors.Is(err, ErrKey):
		return &ControlError{Status: http.StatusConflict, Code: CodeKey, Message: err.Error()}
	case err != nil:
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
