// Command revoker changes a patient's consent as an officer does, for tests that kill or stop it on the way.
//
//	revoker -org ID -profile ID -consent ID -change grant|withdraw|deny
//
// It prints as JSON what the change came to and how long it took. The database is named by CURA_DATABASE_URL.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/store"
)

// result is what a change came to.
type result struct {
	store.ConsentSettlement

	// HaltMS is from the command to the commit of the halt, EffectiveMS until it was effective.
	HaltMS      float64 `json:"halt_ms"`
	EffectiveMS float64 `json:"effective_ms"`
}

func main() {
	org := flag.String("org", "", "id of the org")
	profile := flag.String("profile", "", "id of the patient's profile")
	id := flag.String("consent", "", "id of the consent that changes")
	change := flag.String("change", "withdraw", "grant, withdraw or deny")
	flag.Parse()
	r, err := revoke(context.Background(), cura.OrgID(*org), cura.ProfileID(*profile), *id, *change)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "revoker:", err)
		os.Exit(1)
	}
}

func revoke(ctx context.Context, org cura.OrgID, profile cura.ProfileID, id, change string) (result, error) {
	began := time.Now()
	entry := consent.Grant(consent.Terms{})
	switch change {
	case "withdraw":
		entry.Status = "inactive"
	case "deny":
		entry = consent.Revocation(began)
	}
	db, err := store.Open(ctx, os.Getenv("CURA_DATABASE_URL"))
	if err != nil {
		return result{}, err
	}
	defer db.Close()
	err = db.InOrg(ctx, org, func(tx *store.Tx) error {
		_, err := tx.ChangeConsent(ctx, store.ConsentChange{Profile: profile, ConsentID: id, Entry: entry, Actor: "officer", Role: cura.RoleConsentOfficer})
		return err
	})
	if err != nil {
		return result{}, err
	}
	r := result{HaltMS: since(began)}
	failpoint.Reach(failpoint.ConsentHalted)
	r.ConsentSettlement, err = db.SettleConsent(ctx, org, profile, gate.Permits)
	r.EffectiveMS = since(began)
	return r, err
}

func since(t time.Time) float64 { return float64(time.Since(t)) / float64(time.Millisecond) }
