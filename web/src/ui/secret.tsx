// A secret that the service tells once: shown until it is put away.
import { Dialog } from "./dialog";
import { Snippet } from "./parts";

export function SecretDialog({ title, secret, hint, onClose }: { title: string; secret: string; hint: string; onClose: () => void }) {
  return (
    <Dialog title={title} onClose={onClose}>
      <p>It is shown this once and stored nowhere. {hint}</p>
      <div class="secret">
        <Snippet label={title} text={secret} />
      </div>
      <footer>
        <button type="button" class="button primary" onClick={onClose}>
          I have it
        </button>
      </footer>
    </Dialog>
  );
}
