import { uploaded } from "../api";
import { Dropper, type Given } from "../parts/Dropper";
import { Store, useStore } from "../store";
import { desk, Paint } from "./Paint";

const HERE = desk("t2g");
const PICTURE = new Store<Given | null>(null);

export function Edit() {
  const picture = useStore(PICTURE);
  return (
    <Paint
      kind="edit" desk={HERE} title="Change a picture" label="What shall become of it?" placeholder="what it looks like after an hour in the sun" button="Edit"
      lead="Give a picture and say what shall happen to it. Reverie thinks about what that means, then paints it again."
      given={() => (picture ? { picture: picture.id } : null)} missing="Give a picture first." before={picture && uploaded(picture.id)}
    >
      <Dropper id="picture" label="The picture" given={picture} take={(given) => PICTURE.set(given)} />
    </Paint>
  );
}
