# Sourced by demo.sh and label.sh: the sizes and epochs of trainings on small data sets: at least as
# many epochs as these, and at least as many steps of SGD (docs/small_data.md).

batch_size=8 images=400  # of the drawn birds
cls_size=(--resize 166 --crop 144) cls_epochs=3 cls_steps=215
cam_size=(--resize 166 --crop 144) cam_epochs=12 cam_steps=530
mask_size=(--resize 256)
seg_size=(--resize 256 --crop 224) seg_epochs=4 seg_steps=375 seg_lr=0.05 seg_batch_size=16

epochs() {  # $1: the fewest epochs, $2: the fewest steps, $3: batch size; images: of the training
  local enough=$((($2 * $3 + images - 1) / images))
  echo $((enough > $1 ? enough : $1))
}
